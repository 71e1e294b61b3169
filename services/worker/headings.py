"""Headings that a model writes although it was told not to: its own part's, or another's. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import cached_property, lru_cache
from typing import Final

_MARKS: Final = re.compile(r"[*_#]+")
_SPACES: Final = re.compile(r"[^\S\n]+")
_COLON: Final = r"[:\uFF1A]"
#: What may stand between a heading and the text while it is not decided yet.
_OPEN_TAIL: Final = re.compile(
    rf"\s*(?:{_COLON}\s*|\|[^\n]{{0,40}}|\([^\n]{{0,15}})?(?:\n\s*(?:=+|-+)?)?"
)
_LABEL: Final = re.compile(r"(?:part\s+)?[0-9]{1,3}\s*[.):]\s*")
_OPEN_LABEL: Final = re.compile(r"(?:p|pa|par|part)?\s*(?:[0-9]{1,3}\s*[.):]?\s*)?")
# What follows the title in the plan's line and in the instruction; else it is a table's head. The
# possessive quantifiers keep a title and a thousand spaces from being tried in a million ways.
_FIELD: Final = r"(?:easy|hard|short|medium|long|none|needs|[0-9]{1,3})\b"
_ASKED: Final = rf"(?:\|(?:[ \t]*+[|,:]?[ \t]*+{_FIELD})+|\([0-9]{{1,3}} sentences?\))"
_LINE_END: Final = rf"[ \t]*+{_COLON}?[*_]*+[ \t]*+{_COLON}?[^\S\n]*+\n"
#: Markdown underlines a heading so.
_UNDERLINE: Final = r"[ \t]*+(?:=++|-++)[^\S\n]*+\n"
#: A part's own heading ends with its line, or with a colon.
_OWN_END: Final = (
    rf"[*_]*(?:(?:[ \t]*+{_ASKED})?{_LINE_END}(?:{_UNDERLINE})?|[ \t]*+{_COLON}[*_]*)\s*+"
)
#: Another part's stands alone on its line.
_ALONE: Final = rf"[*_]*(?:[ \t]*+{_ASKED})?{_LINE_END}"
_LINE: Final = re.compile(r"\s*([0-9]{1,3})\.([^|\n]+)")


class Heading:
    """The forms in which a model repeats the title of a part.

    `1. Summary:`, `**Summary**`, `## Part 1: Summary`, the plan's line.

    Args:
        number: of the part.
        summary: of the part.
    """

    def __init__(self, number: int, summary: str) -> None:
        starts = (f"{number}. ", f"{number}) ", f"part {number}: ", f"part {number}. ")
        said = plain(summary)
        self._echoes = tuple(label + said for label in ("", *starts))
        self._words = summary.split()
        self._first_word = self._words[0].lower() if self._words else ""
        self._label = rf"(?:part[^\S\n]+)?{number}[^\S\n]*[.):][*_]*[^\S\n]*"

    def may_begin(self, text: str) -> bool:
        """Say whether `text` may still become this heading, by what comes next."""
        said = plain(text)
        return not said or any(_is_open(said, echo) for echo in self._echoes)

    def may_be_marked_in(self, line: str) -> bool:
        """Say whether `line` may still begin with this heading under any number."""
        said = plain(line)
        label = _LABEL.match(said)
        unlabelled = said[label.end() :] if label else said
        return (
            _OPEN_LABEL.fullmatch(said) is not None
            or _is_open(said, self._echoes[0])
            or _is_open(unlabelled, self._echoes[0])
        )

    def end_in(self, text: str) -> int:
        """Return where the heading that `text` begins with ends; 0 if it has none."""
        found = self._own.match(text) if self._is_named_in(text) else None
        return found.end() if found else 0

    def is_marked_in(self, line: str) -> bool:
        """Say whether `line` is this heading and no more, numbered or marked up as one.

        Under any number: small models go on counting. A title and a text on one line, or in a
        list, may be the part's own: one that sums up names the others. "Part 3: Title" is not.
        """
        return self._is_named_in(line) and self._marked.match(line) is not None

    # Patterns of its own for each part of each request: they are made for texts that need them.

    def _is_named_in(self, text: str) -> bool:
        return self._first_word in text.lower()

    @cached_property
    def _title(self) -> str:
        return r"[^\S\n]+".join(map(re.escape, self._words))

    @cached_property
    def _own(self) -> re.Pattern[str]:
        pattern = rf"[#*_\s]*(?:{self._label})?[*_]*{self._title}{_OWN_END}"
        return re.compile(pattern, re.IGNORECASE)

    @cached_property
    def _marked(self) -> re.Pattern[str]:
        label = r"[0-9]{1,3}[^\S\n]*+[.):][*_]*[^\S\n]*+"
        marks = r"(?:#++[^\S\n]*+[*_]*|[*_]*)"
        marked = rf"(?:#++[^\S\n]*+[*_]*(?:{label})?|[*_]++(?:{label})?|{label})[*_]*"
        part = rf"{marks}part[^\S\n]++{label}{self._title}[*_]*[ \t]*+(?:[:\uFF1A(|]|[^\S\n]*+\n)"
        pattern = rf"[^\S\n]*+(?:{part}|{marked}{self._title}{_ALONE})"
        return re.compile(pattern, re.IGNORECASE)


def heading(number: int, summary: str) -> Heading:
    """Return the heading of a part; the parts of a request are asked for by each of its nodes."""
    return _heading(number, summary)


def others(skeleton: Sequence[str], known: Collection[int]) -> tuple[Heading, ...]:
    """Return the headings of the parts in `skeleton` whose numbers are not `known`."""
    return tuple(_heading(*title) for title in _titles(tuple(skeleton)) if title[0] not in known)


_heading = lru_cache(maxsize=1024)(Heading)


@lru_cache(maxsize=64)
def _titles(skeleton: tuple[str, ...]) -> tuple[tuple[int, str], ...]:
    found = [match for line in skeleton if (match := _LINE.match(line))]
    return tuple((int(match[1]), match[2].strip()) for match in found)


def plain(text: str) -> str:
    """Return `text` without markup, case and double spaces."""
    return _SPACES.sub(" ", _MARKS.sub("", text)).strip().lower()


def _is_open(said: str, echo: str) -> bool:
    """Say whether `said` may still become `echo` and the end of a heading."""
    if echo.startswith(said):
        return True
    return said.startswith(echo) and _OPEN_TAIL.fullmatch(said, len(echo)) is not None
