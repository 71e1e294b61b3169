"""When the next sign of a reply is due. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.runtime.calls import EngineLimits, Limit

#: How long the usage may take that comes after a reply's end.
TAIL_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a limit passes.

    Args:
        at: seconds.
        limit: which it is.
        words: what to say if it has passed.
    """

    at: float
    limit: Limit
    words: str


def next_deadline(
    limits: EngineLimits, since: float, last_token_at: float | None, *, ended: bool
) -> Deadline:
    """Return when the next token is due at last.

    Args:
        limits: of the call.
        since: when the call began, seconds.
        last_token_at: when the latest token came, seconds of the same clock.
        ended: whether the reply has told its end, and only its usage is to come.
    """
    total = Deadline(since + limits.total_s, "total", f"not done in {limits.total_s:g} s")
    if last_token_at is None:
        first_s = limits.first_token_s
        token = Deadline(since + first_s, "first_token", f"no text in {first_s:g} s")
    else:
        between_s = min(limits.between_tokens_s, TAIL_S) if ended else limits.between_tokens_s
        words = f"no more text in {between_s:g} s"
        token = Deadline(last_token_at + between_s, "between_tokens", words)
    return token if token.at <= total.at else total
