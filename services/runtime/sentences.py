"""Where sentences end, in any script and without a list of any language's abbreviations. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_CLOSING: Final = "\"'”’»)\\]*_"
_END: Final = re.compile(
    rf"(?:(?P<point>[.])|[.!?…؟।॥۔]+)[{_CLOSING}]*(?=\s|$)|[。！？｡]+[”’」』）]*"
)
_GOES_ON: Final = re.compile(r"[^\S\n]+(\w)")
_LETTER: Final = re.compile(r"\b[^\W\d_]\Z")


def ends(text: str) -> Iterator[int]:
    """Yield where each sentence of `text` ends, with its closing quotation marks and brackets.

    A point behind a single letter (e.g., z. B., J. Smith) ends none, nor does one before a small
    letter on the same line (Acme Inc. was): rather an end too few than one within a sentence.
    """
    return (found.end() for found in _END.finditer(text) if _is_end(text, found))


def _is_end(text: str, found: re.Match[str]) -> bool:
    following = _GOES_ON.match(text, found.end())
    if following and following[1].islower():
        return False
    if found["point"] is None:
        return True
    start = found.start("point")
    return _LETTER.search(text[max(0, start - 2) : start]) is None
