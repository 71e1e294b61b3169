"""A toy tokeniser: pieces of about four characters that add up to the text; pure."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

#: Ids below are special; `EOS` ends a reply and has no text.
FIRST_ID: Final = 16
EOS: Final = 2
VOCABULARY: Final = 128_000

_PIECE = re.compile(r" ?[^\W\d_]{1,6}|\d{1,3}|[ \t]?[^\w\s]{1,2}|\n+|\s|.", re.DOTALL)


def pieces(text: str) -> list[str]:
    """Return the tokens of `text`, which they add up to."""
    return _PIECE.findall(text)


@lru_cache(maxsize=65_536)
def token_id(piece: str) -> int:
    """Return the id of a token; two tokens may share one."""
    return FIRST_ID + zlib.crc32(piece.encode("utf-8", "surrogatepass")) % (VOCABULARY - FIRST_ID)


def token_ids(text_pieces: Sequence[str]) -> list[int]:
    """Return the ids of tokens."""
    return [token_id(piece) for piece in text_pieces]
