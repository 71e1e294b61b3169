"""The headers that tell a caller how near its limits it is."""

from __future__ import annotations

import time

from services.gateway.accounts import Accounts
from services.gateway.keys import Caller


def rate_headers(accounts: Accounts, caller: Caller) -> dict[str, str]:
    """Return `x-ratelimit-*` headers in OpenAI's names; none for a caller without limits."""
    headers: dict[str, str] = {}
    now = time.time()
    if (limit := caller.max_in_flight) is not None:
        left = max(0, limit - accounts.in_flight(caller.owner, now))
        headers |= _pair("requests", limit, left)
    if (budget := caller.tokens_per_minute) is not None:
        left = max(0, budget - accounts.spent(caller.owner, now))
        headers |= _pair("tokens", budget, left)
        refill_s = 0.0 if left else accounts.refill_s(caller.owner, budget, now)
        headers["X-RateLimit-Reset-Tokens"] = f"{refill_s:.0f}s"
    return headers


def _pair(kind: str, limit: int, left: int) -> dict[str, str]:
    name = kind.capitalize()
    return {f"X-RateLimit-Limit-{name}": f"{limit}", f"X-RateLimit-Remaining-{name}": f"{left}"}
