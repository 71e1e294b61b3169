"""Headings that a model writes although it was told not to: its own part's, or another's. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Final

_MARKS: Final = re.compile(r"[*_#]+")
_SPACES: Final = re.compile(r"[^\S\n]+")
#: What may stand between a heading and the text while it is not decided yet.
_OPEN_TAIL: Final = re.compile(r"\s*(?:[:\uFF1A]\s*|\|[^\n]{0,40}|\([^\n]{0,15})?")
_LABEL: Final = re.compile(r"(?:part\s+)?[0-9]{1,3}\s*[.):]\s*")
_OPEN_LABEL: Final = re.compile(r"(?:p|pa|par|part)?\s*(?:[0-9]{1,3}\s*[.):]?\s*)?")
#: A heading ends with its line, or with a colon.
_END: Final = (
    r"(?:[ \t]*(?:\|[^\n]{0,40}|\([0-9]+ sentences?\)))?"
    r"(?:[:\uFF1A]?[*_]*[ \t]*[:\uFF1A]?\s*\n|[*_]*[ \t]*[:\uFF1A][*_]*)\s*"
)
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
        self._label = rf"(?:part\s+)?{number}\s*[.):][*_]*\s*"

    def may_begin(self, text: str) -> bool:
        """Say whether `text` may still become this heading, by what comes next."""
        said = plain(text)
        return not said or any(_is_open(said, echo) for echo in self._echoes)

    def may_be_marked_in(self, line: str) -> bool:
        """Say whether `line` may still begin with this heading under any number."""
        said = plain(line)
        if _OPEN_LABEL.fullmatch(said):
            return True
        return _is_open(_LABEL.sub("", said, count=1), self._echoes[0])

    def end_in(self, text: str) -> int:
        """Return where the heading that `text` begins with ends; 0 if it has none."""
        found = self._own.match(text) if self._is_named_in(text) else None
        return found.end() if found else 0

    def is_marked_in(self, line: str) -> bool:
        """Say whether `line` begins with this heading, numbered or marked up as one.

        Under any number: small models go on counting.
        A bare title with a colon may be text: a part that sums up names the others.
        """
        return self._is_named_in(line) and self._marked.match(line) is not None

    # Patterns of its own for each part of each request: they are made for texts that need them.

    def _is_named_in(self, text: str) -> bool:
        return self._first_word in text.lower()

    @cached_property
    def _title(self) -> str:
        return r"\s+".join(map(re.escape, self._words))

    @cached_property
    def _own(self) -> re.Pattern[str]:
        pattern = rf"[#*_\s]*(?:{self._label})?[*_]*{self._title}{_END}"
        return re.compile(pattern, re.IGNORECASE)

    @cached_property
    def _marked(self) -> re.Pattern[str]:
        label = r"(?:part\s+)?[0-9]{1,3}\s*[.):][*_]*\s*"
        marks = rf"[ \t]*(?:[#*_]+[ \t]*(?:{label})?|{label})"
        return re.compile(rf"{marks}[*_]*{self._title}{_END}", re.IGNORECASE)


def heading(number: int, summary: str) -> Heading:
    """Return the heading of a part; the parts of a request are asked for by each of its nodes."""
    return _heading(number, summary)


def others(skeleton: Sequence[str], number: int) -> tuple[Heading, ...]:
    """Return the headings of the parts in `skeleton` other than part `number`."""
    return tuple(_heading(*title) for title in _titles(tuple(skeleton)) if title[0] != number)


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
