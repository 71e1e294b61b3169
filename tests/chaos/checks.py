"""The audit: what must hold after any faults. Pure; each check yields what does not hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from proto.errors import Cancelled, DeadlineExceeded, NodeGaveUp, PlanRejected
from proto.messages import RequestFailed
from proto.names import DIRECT_NODE
from services.runtime.facts import StoredFact
from tests.chaos.doubles import nothing_is_done_twice_at_once
from tests.chaos.evidence import Evidence
from tests.chaos.letters import the_dead_have_letters
from tests.chaos.load import Sent
from tests.chaos.remains import (
    no_consumer_is_left,
    nobody_is_connected_still,
    nothing_is_in_flight,
    processes_stay_well,
    queues_are_empty,
)
from tests.chaos.stories import Story, story_of
from tests.chaos.violations import Violation

#: An end by deadline may come so late: a take-over, a NATS outage, an election.
DEADLINE_MARGIN_S: Final = 20.0

#: Ends that only engines' faults explain.
_ENGINES_FAULT: Final = frozenset({NodeGaveUp.code, PlanRejected.code})
#: An engine that has failed is left out for a time after it is well again.
LEFT_OUT_S: Final = 15.0


def audit(evidence: Evidence) -> list[Violation]:
    """Return all that does not hold."""
    return [violation for check in CHECKS for violation in check(evidence)]


def _each(evidence: Evidence) -> Iterator[tuple[Sent, list[StoredFact], Story]]:
    for request, sent in evidence.sent.items():
        facts = evidence.facts.get(request, [])
        yield sent, facts, story_of(facts)


def every_request_ends_once(evidence: Evidence) -> Iterator[Violation]:
    for sent, facts, story in _each(evidence):
        if (sent.stored or facts) and not story.ends:
            known = ", ".join(story.kinds) or "nothing"
            yield Violation("lost", f"no end; stored: {known}", sent.request)
        if len(story.ends) > 1:
            yield Violation("ended twice", f"{len(story.ends)} ends", sent.request)


def facts_are_said_once(evidence: Evidence) -> Iterator[Violation]:
    for subject in evidence.repeated:
        yield Violation("fact said twice", subject, subject.split(".")[4])


def answers_are_their_nodes_texts(evidence: Evidence) -> Iterator[Violation]:
    for sent, _, story in _each(evidence):
        for wrong in story.wrong_answer():
            yield Violation("wrong answer", wrong, sent.request)


def texts_are_whole(evidence: Evidence) -> Iterator[Violation]:
    if evidence.options.engine == "real":
        return
    for sent, _, story in _each(evidence):
        for wrong in story.wrong_texts():
            yield Violation("wrong text", wrong, sent.request)


def plans_are_the_models(evidence: Evidence) -> Iterator[Violation]:
    if evidence.options.engine == "real":
        return
    for sent, _, story in _each(evidence):
        for wrong in story.wrong_plan():
            yield Violation("wrong plan", wrong, sent.request)


def failures_are_explained(evidence: Evidence) -> Iterator[Violation]:
    for sent, facts, story in _each(evidence):
        end = story.end
        if not isinstance(end, RequestFailed):
            continue
        code = end.error.code
        explained = _explained(sent, story, code)
        if code in _ENGINES_FAULT:
            ended_at = facts[story.end_place].stored_at
            explained = explained and _engines_were_hit(evidence, sent.sent_at, ended_at)
        if not explained:
            yield Violation("unexplained failure", f"{code}: {end.error.message}", sent.request)


def _engines_were_hit(evidence: Evidence, begin: float, end: float) -> bool:
    """Whether an engine, or who called it, was hit in this time or shortly before."""
    return any(
        fault.kind.startswith(("engine_", "kill_engine", "kill_worker"))
        and fault.touches(begin, end, after_s=LEFT_OUT_S)
        for fault in evidence.faults
    )


def _explained(sent: Sent, story: Story, code: str) -> bool:
    if code == Cancelled.code:
        return bool(sent.cancels)
    if code == DeadlineExceeded.code:
        return sent.short
    if code == NodeGaveUp.code:
        died = DIRECT_NODE in story.failed
        return bool(story.failed) and (sent.ask.on_failure == "fail" or died)
    return code == PlanRejected.code and sent.ask.dry_run


def cancels_are_kept(evidence: Evidence) -> Iterator[Violation]:
    for sent, _, story in _each(evidence):
        outcomes = [outcome for _, outcome in sent.cancels]
        end = story.end
        was = isinstance(end, RequestFailed) and end.error.code == Cancelled.code
        if "cancelled" in outcomes and not was:
            yield Violation("cancel not kept", f"{outcomes}, the end is {end}", sent.request)
        if "unknown" in outcomes:
            yield Violation("cancel not kept", "a stored request was `unknown`", sent.request)


def deadlines_are_kept(evidence: Evidence) -> Iterator[Violation]:
    for sent, facts, story in _each(evidence):
        if story.accepted is None or not story.ends:
            continue
        # Before a planner has taken a request up nobody looks at its deadline.
        due = max(story.accepted.deadline_at, facts[story.accepted_place].stored_at)
        late_s = facts[story.end_place].stored_at - due
        if late_s > DEADLINE_MARGIN_S:
            yield Violation("deadline not kept", f"{late_s:.1f} s late", sent.request)


def followers_see_it_all(evidence: Evidence) -> Iterator[Violation]:
    for sent, facts, story in _each(evidence):
        if not sent.follows or not story.ends:
            continue
        if sent.followed is None:
            yield Violation("follower missed facts", "it never saw the end", sent.request)
            continue
        until_end = [stored.fact for stored in facts[: story.end_place + 1]]
        if sent.followed != until_end:
            detail = f"followed {len(sent.followed)} facts, stored {len(until_end)}"
            yield Violation("follower missed facts", detail, sent.request)


def cancels_are_quick(evidence: Evidence) -> Iterator[Violation]:
    if evidence.figures:
        for window, slow in evidence.figures.slow_cancels(evidence.stalls):
            yield Violation("cancel too slow", f"{window}: {slow}")


CHECKS: Final[tuple[Callable[[Evidence], Iterator[Violation]], ...]] = (
    every_request_ends_once,
    facts_are_said_once,
    answers_are_their_nodes_texts,
    texts_are_whole,
    plans_are_the_models,
    failures_are_explained,
    cancels_are_kept,
    deadlines_are_kept,
    followers_see_it_all,
    nothing_is_done_twice_at_once,
    queues_are_empty,
    nothing_is_in_flight,
    nobody_is_connected_still,
    no_consumer_is_left,
    processes_stay_well,
    the_dead_have_letters,
    cancels_are_quick,
)
