"""One endpoint of a pool, as its streams show it: its load, its pace, and whether it is left out.

in --- fails, is silent, or is slow ---> out --- time passes ---> due --- check() ---> ready
 ^                                        ^                                              |
 +------------------ answered ------------+--- fails --- trial <--- one stream ----------+
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

import structlog

from proto.errors import (
    EngineError,
    EngineOverloaded,
    EngineRejected,
    EngineTimedOut,
    EngineUnavailable,
)
from services.runtime import metrics
from services.runtime.balance import PoolPolicy
from services.runtime.calls import Went
from services.runtime.engine import ChatStream, EngineClient
from services.runtime.pace import Pace
from services.runtime.window import Window

log = structlog.get_logger()

#: How long an endpoint is left out the first time; doubles with each further one.
FIRST_EJECTION_S: Final = 1.0
LONGEST_EJECTION_S: Final = 60.0
#: Failures in a row, of the kind that a prompt may be to blame for, until it is left out.
FAILURES: Final = 3
#: A stream that had less than this share of the time to its first token, as it waited elsewhere
#: before, did not time out for its endpoint's sake.
FAIR_SHARE: Final = 0.5

Clock = Callable[[], float]
State = Literal["in", "out", "checked", "ready", "trial"]
Reason = Literal["unavailable", "failures", "silent", "slow"]


def ejection_s(times: int) -> float:
    """Return how long an endpoint is left out for the so-manieth time in a row."""
    return min(LONGEST_EJECTION_S, FIRST_EJECTION_S * 2.0 ** min(times - 1, 30))


class Endpoint:
    """One endpoint. It watches the streams that go to it.

    Args:
        client: of the engine.
        policy: of the pool.
        clock: monotonic seconds.

    Attributes:
        in_flight: streams that it has, or is about to have.
        gone: it is no longer of the pool; its streams may go on.
        streams: that it has; given up when it is left out for its silence.
        roomier: is called when it may take more than before.
    """

    def __init__(self, client: EngineClient, policy: PoolPolicy, clock: Clock) -> None:
        self.client = client
        self.url = client.url
        self.in_flight = 0
        self.gone = False
        self.pace = Pace()
        self.streams: set[ChatStream] = set()
        self.roomier: Callable[[], None] = _nothing
        self._policy = policy
        self._clock = clock
        self._window = Window(policy.max_in_flight)
        self._state: State = "in"
        self._failures = 0
        self._ejections = 0
        self._ejected_at = float("-inf")
        self._ejected_until = float("-inf")
        self._reason: Reason = "unavailable"
        self._heard_at = clock()
        self._asked_at: float | None = None
        self._talking = 0
        self._trial_begun = False

    @property
    def limit(self) -> int:
        """How many streams it may have now."""
        return self._window.limit

    @property
    def eligible(self) -> bool:
        """Whether a stream may go to it now."""
        return self._state in ("in", "ready")

    @property
    def ejected_at(self) -> float:
        """When it was last left out."""
        return self._ejected_at

    @property
    def due(self) -> bool:
        """Whether it has been left out for long enough to be asked for its health."""
        return self._state == "out" and self._clock() >= self._ejected_until

    @property
    def fell_silent(self) -> bool:
        """Whether it is left out because it was silent."""
        return self._state != "in" and self._reason == "silent"

    @property
    def to_be_asked(self) -> bool:
        """Whether it owes first tokens only, and has been quiet for half of what it may be."""
        owes = self._state in ("in", "trial") and self.in_flight and not self._talking
        return bool(owes) and self._asked_at is None and self._quiet_s() >= self._half_s

    def asking(self) -> float:
        """Note that it is being asked whether it is well; return when."""
        self._asked_at = self._clock()
        return self._asked_at

    def well(self, asked_at: float) -> None:
        """Note that it is well, asked at `asked_at`: busy, that is, and not silent."""
        if self._asked_at == asked_at:
            self._sign(self._clock())

    def take(self) -> None:
        """Give it a stream."""
        if not self.in_flight:
            self._sign(self._clock())
        self.in_flight += 1
        if self._state == "ready":
            self._state, self._trial_begun = "trial", False
        metrics.ENDPOINT_IN_FLIGHT.labels(self.url).set(self.in_flight)

    def release(self) -> None:
        """Take a stream off it."""
        self.in_flight -= 1
        if self._state == "trial" and not self._trial_begun:
            self._state = "ready"  # the trial was called off before it began
        if not self.gone:
            metrics.ENDPOINT_IN_FLIGHT.labels(self.url).set(self.in_flight)
        self.roomier()

    def checking(self) -> None:
        """Note that it is being asked for its health."""
        self._state = "checked"

    def checked(self, failure: EngineError | None) -> None:
        """Note what it said: if it is healthy, one stream may go to it."""
        if self._state != "checked":
            return  # a stream has told already
        if failure:
            self._eject(self._reason, failure)
        else:
            self._state = "ready"
            self.roomier()

    def started(self, now: float) -> None:
        """Note that a stream was entered."""
        self._trial_begun = True

    def heard(self, started_at: float, now: float, gap_s: float | None) -> None:
        """Note that a stream has another token, `gap_s` after the one before it."""
        self._sign(now)
        if gap_s is not None:
            self.pace.gap.add(gap_s)
            return
        self._talking += 1
        self.pace.first.add(now - started_at)
        if started_at >= self._ejected_at:
            self._answer()
        self._window.answered(self.in_flight, self._clock())
        self.roomier()

    def ended(self, went: Went) -> None:
        """Note that a stream was left, and learn from how."""
        if went.first_at is not None:
            self._talking -= 1
        if isinstance(went.failure, EngineOverloaded):
            self._refuse(went)
        # What began before the last failure tells nothing new: a crash ends many at once.
        if went.started_at < self._ejected_at:
            return
        if went.complete:
            self._succeed()
        elif went.failure and not isinstance(went.failure, EngineOverloaded | EngineRejected):
            self._fail(went, went.failure)
        elif self._state == "trial":
            self._state = "ready"  # it was left before an answer, which proves nothing

    def look(self, others: Sequence[Endpoint]) -> None:
        """Leave it out if it is silent or slow, as long as there are others to go to."""
        usable = [one for one in others if one.eligible]
        if self._state not in ("in", "trial") or not usable:
            return
        if self.in_flight and self._is_silent():
            self._eject("silent")
            for stream in self.streams:
                stream.give_up("the engine has fallen silent")
        elif 2 * len(usable) >= len(others) and self._is_slow([one.pace for one in usable]):
            self._eject("slow")

    def _is_silent(self) -> bool:
        """Whether it has been quiet for too long, and has had the time to say that it is well."""
        if self._quiet_s() <= self._policy.silent_after_s:
            return False
        if self._talking:
            return True
        return self._asked_at is not None and self._clock() - self._asked_at >= self._half_s

    @property
    def _half_s(self) -> float:
        return self._policy.silent_after_s / 2

    def _quiet_s(self) -> float:
        return self._clock() - self._heard_at

    def _sign(self, now: float) -> None:
        self._heard_at, self._asked_at = now, None

    def _is_slow(self, others: Sequence[Pace]) -> bool:
        # Who was left out before is judged by its first stream: each more is slow for somebody.
        return self.pace.is_outlier(others, suspected=self._ejections > 0)

    def _answer(self) -> None:
        """Take it back at its first token; one that was slow must show its pace."""
        if self._state != "in" and self._reason != "slow":
            self._restore()

    def _succeed(self) -> None:
        self._failures = 0
        if self._state != "in":
            self._restore()
        elif self._reason != "slow" or self.pace.is_known:
            self._ejections = 0

    def _fail(self, went: Went, failure: EngineError) -> None:
        if went.limit == "total" or (went.limit == "first_token" and not self._had_time(went)):
            return
        self._failures += 1
        if isinstance(failure, EngineUnavailable | EngineTimedOut):
            self._eject("unavailable", failure)
        elif self._state == "trial" or self._failures >= FAILURES:
            self._eject("failures", failure)

    def _had_time(self, went: Went) -> bool:
        return self._clock() - went.started_at >= FAIR_SHARE * self.client.limits.first_token_s

    def _refuse(self, went: Went) -> None:
        metrics.REFUSALS.inc()
        if self._window.refused(self.in_flight, went.started_at, self._clock()):
            log.warning("endpoint_overloaded", endpoint=self.url, limit=self.limit)
        if self._state == "trial":
            self._state = "ready"

    def _eject(self, reason: Reason, failure: EngineError | None = None) -> None:
        self._ejections += 1
        self._state, self._reason, self._failures = "out", reason, 0
        self._ejected_at = self._clock()
        self._sign(self._ejected_at)
        out_s = ejection_s(self._ejections)
        self._ejected_until = self._ejected_at + out_s
        self.pace = Pace()
        metrics.EJECTIONS.labels(reason).inc()
        self._tell_health(0)
        error = failure.code if failure else None
        log.warning(
            "endpoint_ejected", endpoint=self.url, reason=reason, error=error, ejected_s=out_s
        )

    def _restore(self) -> None:
        self._state = "in"
        self._tell_health(1)
        log.info("endpoint_restored", endpoint=self.url)
        self.roomier()

    def _tell_health(self, healthy: int) -> None:
        if not self.gone:
            metrics.ENDPOINT_HEALTHY.labels(self.url).set(healthy)


def _nothing() -> None:
    """Nobody listens."""
