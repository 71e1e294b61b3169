"""What each owner has in flight, has used and has asked of late: a fold of the event log.

Every gateway folds the same facts, so they agree, a few milliseconds apart, without asking each
other. What this process has submitted and no planner has taken up yet is counted here only.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from proto.messages import (
    AnswerAssembled,
    Fact,
    NodeDecoded,
    PlanCompleted,
    RequestAccepted,
    RequestFailed,
    SkeletonDrafted,
    Usage,
)
from services.gateway.errors import TokensPerMinute, TooManyRequests
from services.gateway.keys import Caller

MINUTE_S: Final = 60.0
MAX_RECENT: Final = 50
#: Of requests that have ended more than a minute ago only so many are known.
MAX_ENDED: Final = 5000
#: After its deadline, and this long, a request counts as ended even if nobody says so.
GRACE_S: Final = 60.0
_QUESTION_CHARS: Final = 200

State = Literal["open", "answered", "drafted", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of the history."""

    request: str
    question: str
    asked_mode: str
    submitted_at: float
    state: State = "open"
    ended_at: float | None = None


@dataclass(slots=True)
class _Account:
    """One owner's: open requests with the time at which they count as ended, tokens, history."""

    open: dict[str, float] = field(default_factory=dict)
    spent: deque[tuple[float, int]] = field(default_factory=deque)
    recent: OrderedDict[str, Asked] = field(default_factory=OrderedDict)


@dataclass(slots=True)
class _Ended:
    """A request that has ended: what it used is its owner's still, whichever fact is read first."""

    at: float
    owner: str | None


def state_after(end: AnswerAssembled | SkeletonDrafted | RequestFailed) -> State:
    """Return the state of a request after its end."""
    if isinstance(end, RequestFailed):
        return "cancelled" if end.error.code == "cancelled" else "failed"
    return "answered" if isinstance(end, AnswerAssembled) else "drafted"


class Accounts:
    """All owners' accounts. Pure: times are handed in, in seconds since the epoch."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._owners: dict[str, str] = {}  # of open requests
        self._ended: OrderedDict[str, _Ended] = OrderedDict()

    def fold(self, fact: Fact, stored_at: float) -> None:
        """Take note of a fact; of `accepted` and the end also more than once, in any order."""
        match fact:
            case RequestAccepted():
                self._accepted(fact)
            case PlanCompleted() | NodeDecoded():
                self._spend(fact.request, stored_at, fact.usage)
            case AnswerAssembled() | SkeletonDrafted() | RequestFailed():
                self._end(fact, stored_at)

    def admit(self, caller: Caller, request: str, now: float, deadline_at: float) -> None:
        """Count a request that is about to be submitted.

        Raises:
            TooManyRequests: the owner has as many open as it may.
            TokensPerMinute: the owner has used up its tokens.
        """
        limit, budget = caller.max_in_flight, caller.tokens_per_minute
        if limit is not None and self.in_flight(caller.owner, now) >= limit:
            raise TooManyRequests(f"{limit}", retry_after_s=1.0)
        if budget is not None and self.spent(caller.owner, now) >= budget:
            raise TokensPerMinute(
                f"{budget}", retry_after_s=self.refill_s(caller.owner, budget, now)
            )
        self._account(caller.owner).open[request] = deadline_at + GRACE_S
        self._owners[request] = caller.owner

    def withdraw(self, request: str) -> None:
        """Forget a request that could not be submitted."""
        owner = self._owners.pop(request, None)
        if owner is not None:
            self._account(owner).open.pop(request, None)

    def in_flight(self, owner: str, now: float) -> int:
        """Return how many requests of `owner` are open."""
        account = self._account(owner)
        for request in [one for one, until in account.open.items() if until < now]:
            self.withdraw(request)
        return len(account.open)

    def spent(self, owner: str, now: float) -> int:
        """Return the tokens that `owner` has used in the last minute."""
        spent = self._account(owner).spent
        _forget(spent, now)
        return sum(tokens for _, tokens in spent)

    def refill_s(self, owner: str, budget: int, now: float) -> float:
        """Return the seconds until `owner` has used less than `budget` in the last minute."""
        left = self.spent(owner, now)
        for at, tokens in self._account(owner).spent:
            left -= tokens
            if left < budget:
                return max(0.0, at + MINUTE_S - now)
        return 0.0

    def recent(self, owner: str, limit: int) -> list[Asked]:
        """Return the last requests of `owner`, newest first."""
        asked = sorted(self._account(owner).recent.values(), key=lambda one: -one.submitted_at)
        return asked[:limit]

    def _account(self, owner: str) -> _Account:
        return self._accounts.setdefault(owner, _Account())

    def _accepted(self, fact: RequestAccepted) -> None:
        asked, request = fact.submitted, fact.request
        account = self._account(asked.owner)
        if request not in account.recent:
            question = asked.question[:_QUESTION_CHARS]
            account.recent[request] = Asked(request, question, asked.mode, fact.submitted_at)
        if len(account.recent) > MAX_RECENT:
            account.recent.popitem(last=False)
        if ended := self._ended.get(request):
            ended.owner = asked.owner
        else:
            self._owners[request] = asked.owner
            account.open[request] = fact.deadline_at + GRACE_S

    def _spend(self, request: str, at: float, usage: Usage) -> None:
        tokens = usage.prompt_tokens + usage.generated_tokens
        ended = self._ended.get(request)
        owner = ended.owner if ended else self._owners.get(request)
        if owner is None or not tokens:
            return
        spent = self._account(owner).spent
        spent.append((at, tokens))
        _forget(spent, at)

    def _end(self, end: AnswerAssembled | SkeletonDrafted | RequestFailed, at: float) -> None:
        self._forget_ended(at)
        known = self._ended.get(end.request)
        owner = known.owner if known else self._owners.get(end.request)
        self._ended[end.request] = _Ended(at, owner)
        self.withdraw(end.request)
        if owner is not None:
            self._note_end(owner, end, at)

    def _forget_ended(self, now: float) -> None:
        while len(self._ended) > MAX_ENDED:
            oldest = next(iter(self._ended.values()))
            if oldest.at > now - MINUTE_S:
                return
            self._ended.popitem(last=False)

    def _note_end(
        self, owner: str, end: AnswerAssembled | SkeletonDrafted | RequestFailed, at: float
    ) -> None:
        recent = self._account(owner).recent
        if end.request in recent:
            known = recent[end.request]
            recent[end.request] = replace(known, state=state_after(end), ended_at=at)


def _forget(spent: deque[tuple[float, int]], now: float) -> None:
    """Leave what was spent more than a minute ago out."""
    while spent and spent[0][0] <= now - MINUTE_S:
        spent.popleft()
