"""What goes wrong, when, and for whom; pure."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any, Final, Literal, get_args

Kind = Literal[
    "refuse",
    "error",
    "in_band",
    "garbage",
    "hang",
    "hang_mid",
    "keep_alive",
    "cut",
    "cut_mid",
    "die",
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
#: Those that happen before the first token.
EARLY: Final[frozenset[Kind]] = frozenset({"refuse", "error", "hang", "keep_alive"})
_MOST_AFTER: Final = 12


@dataclass(frozen=True, slots=True)
class Fault:
    """What befalls one request.

    Args:
        kind: `refuse`: overloaded; `error`: 500; `in_band`: a failure
            told within the stream; `garbage`: bytes that are no event; `hang`:
            silence before the first token, `keep_alive`: the same with signs of life;
            `hang_mid`: silence after some tokens; `cut`: the connection ends between two
            events, `cut_mid`: within one; `die`: the process ends.
        after_tokens: how many tokens come before it.
    """

    kind: Kind
    after_tokens: int


class Faults:
    """Draws what goes wrong with each request.

    Args:
        kind: nothing if None.
        share: of the requests that it befalls.
        count: how many it befalls at most; no limit if None.
        after_tokens: when it strikes; drawn if None.
        seed: of the draws.
    """

    def __init__(
        self,
        kind: Kind | None = None,
        *,
        share: float = 1.0,
        count: int | None = None,
        after_tokens: int | None = None,
        seed: int = 0,
    ) -> None:
        if kind is not None and kind not in KINDS:
            raise ValueError(f"no fault is called {kind!r}; there are {', '.join(KINDS)}")
        self.kind = kind
        self.share = share
        self.count = count
        self.after_tokens = after_tokens
        self.befallen = 0
        self._random = Random(seed)

    def draw(self) -> Fault | None:
        """Return what befalls the next request."""
        spent = self.count is not None and self.befallen >= self.count
        if self.kind is None or spent or self._random.random() >= self.share:
            return None
        self.befallen += 1
        after = self.after_tokens
        return Fault(self.kind, self._random.randint(1, _MOST_AFTER) if after is None else after)

    def told(self) -> dict[str, Any]:
        """Return the state, for the control route."""
        return {
            "fault": self.kind,
            "share": self.share,
            "count": self.count,
            "after_tokens": self.after_tokens,
            "befallen": self.befallen,
        }
