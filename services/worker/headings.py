"""Headings that a model writes although it was told not to: its own part's, or another's. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
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
        self._echoes = tuple(label + plain(summary) for label in ("", *starts))
        title = r"\s+".join(map(re.escape, summary.split()))
        label = rf"(?:part\s+)?{number}\s*[.):][*_]*\s*"
        self._own = re.compile(rf"[#*_\s]*(?:{label})?[*_]*{title}{_END}", re.IGNORECASE)
        any_label = r"(?:part\s+)?[0-9]{1,3}\s*[.):][*_]*\s*"
        marked = rf"[ \t]*(?:[#*_]+[ \t]*(?:{any_label})?|{any_label})[*_]*{title}{_END}"
        self._marked = re.compile(marked, re.IGNORECASE)

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
        found = self._own.match(text)
        return found.end() if found else 0

    def is_marked_in(self, line: str) -> bool:
        """Say whether `line` begins with this heading, numbered or marked up as one.

        Under any number: small models go on counting.
        A bare title with a colon may be text: a part that sums up names the others.
        """
        return self._marked.match(line) is not None


def others(skeleton: Sequence[str], number: int) -> tuple[Heading, ...]:
    """Return the headings of the parts in `skeleton` other than part `number`."""
    found = [match for line in skeleton if (match := _LINE.match(line))]
    return tuple(
        Heading(int(match[1]), match[2].strip()) for match in found if int(match[1]) != number
    )


def plain(text: str) -> str:
    """Return `text` without markup, case and double spaces."""
    return _SPACES.sub(" ", _MARKS.sub("", text)).strip().lower()


def _is_open(said: str, echo: str) -> bool:
    """Say whether `said` may still become `echo` and the end of a heading."""
    if echo.startswith(said):
        return True
    return said.startswith(echo) and _OPEN_TAIL.fullmatch(said, len(echo)) is not None
