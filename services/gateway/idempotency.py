"""Which request an idempotency key means: the same at every gateway. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from proto.errors import InvalidRequest

MAX_KEY_CHARS: Final = 255
#: What a key may hold: printable ASCII, with spaces only inside, as headers keep them.
KEY_PATTERN: Final = "^[!-~]([ -~]*[!-~])?$"
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
        InvalidRequest: the key is empty, too long or not printable ASCII.
    """
    if not 0 < len(key) <= MAX_KEY_CHARS:
        raise InvalidRequest(f"1 to {MAX_KEY_CHARS} characters", field="Idempotency-Key")
    if not re.fullmatch(KEY_PATTERN, key):
        raise InvalidRequest("it is not printable ASCII", field="Idempotency-Key")
    text = "\0".join([owner, key, str(generation), *([terms] if terms else [])])
    return "i" + hashlib.sha256(text.encode()).hexdigest()[:31]
