"""Which request an idempotency key means: the same at every gateway. Pure."""

from __future__ import annotations

import hashlib
from typing import Final

from proto.errors import InvalidRequest

MAX_KEY_CHARS: Final = 255
#: How often what an idempotency key meant may end without an answer and be asked anew.
GENERATIONS: Final = 16


def request_id(owner: str, key: str, generation: int = 0, terms: str = "") -> str:
    """Return the request id that `key` of `owner` means.

    Args:
        owner: whose key it is; two owners' keys never meet.
        key: as the client sent it.
        generation: how many requests under this key have ended without an answer.
        terms: what of the call is not in the stored request and yet tells it from others.

    Raises:
        InvalidRequest: the key is empty or too long.
    """
    if not 0 < len(key) <= MAX_KEY_CHARS:
        raise InvalidRequest(f"1 to {MAX_KEY_CHARS} characters", field="Idempotency-Key")
    text = "\0".join([owner, key, str(generation), *([terms] if terms else [])])
    return "i" + hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:31]
