"""When the next sign of a reply is due. Pure."""

from __future__ import annotations

from typing import Final

from services.runtime.calls import EngineLimits

#: How long the usage may take that comes after a reply's end.
TAIL_S: Final = 5.0


def next_deadline(
    limits: EngineLimits, since: float, last_token_at: float | None, *, ended: bool
) -> tuple[float, str]:
    """Return when the next token is due at last, and what to say if it has not come.

    Args:
        limits: of the call.
        since: when the call began, seconds.
        last_token_at: when the latest token came, seconds of the same clock.
        ended: whether the reply has told its end, and only its usage is to come.
    """
    total = since + limits.total_s, f"not done in {limits.total_s:g} s"
    if last_token_at is None:
        first_s = limits.first_token_s
        return min((since + first_s, f"no text in {first_s:g} s"), total)
    between_s = min(limits.between_tokens_s, TAIL_S) if ended else limits.between_tokens_s
    return min((last_token_at + between_s, f"no more text in {between_s:g} s"), total)
