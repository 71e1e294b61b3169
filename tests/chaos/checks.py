"""The audit: what must hold after any faults. Pure; each check yields what does not hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from proto.errors import Cancelled, DeadlineExceeded, NodeGaveUp
from proto.messages import RequestFailed
from proto.names import DIRECT_NODE
from services.runtime.facts import StoredFact
from tests.chaos.calls import overlaps
from tests.chaos.evidence import Evidence
from tests.chaos.load import Sent
from tests.chaos.stories import Story, story_of

#: How much longer than the ack wait two live processes may do the same: a mark may be late,
#: and the word to stop is looked for at a third of the ack wait.
OVERLAP_MARGIN_S: Final = 1.0
#: Between two calls for the same thing without any fault: one ends as the other begins.
UNEXPLAINED_S: Final = 0.25
#: A fault explains a redelivery if it was so long before it.
SHADOW_S: Final = 12.0
#: An end by deadline may come so late: a take-over, a NATS outage, an election.
DEADLINE_MARGIN_S: Final = 20.0
#: Memory of a long-lived process may grow by this, as caches fill.
GROWTH_MIB: Final = 40.0
GROWTH_SHARE: Final = 0.35
FILES: Final = 12


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was not kept."""

    check: str
    detail: str
    request: str | None = None


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
    for sent, _, story in _each(evidence):
        end = story.end
        if isinstance(end, RequestFailed) and not _explained(sent, story, end.error.code):
            detail = f"{end.error.code}: {end.error.message}"
            yield Violation("unexplained failure", detail, sent.request)


def _explained(sent: Sent, story: Story, code: str) -> bool:
    if code == Cancelled.code:
        return bool(sent.cancels)
    if code == DeadlineExceeded.code:
        return sent.short
    if code == NodeGaveUp.code:
        died = DIRECT_NODE in story.failed
        return bool(story.failed) and (sent.ask.on_failure == "fail" or died)
    return code == "plan_rejected" and sent.ask.dry_run


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


def nothing_is_done_twice_at_once(evidence: Evidence) -> Iterator[Violation]:
    for one in overlaps(evidence.calls, evidence.frozen):
        explained = _redelivery_explained(evidence, one.first.began, one.second.began)
        bound_s = evidence.options.ack_wait_s + OVERLAP_MARGIN_S if explained else UNEXPLAINED_S
        if one.live_s > bound_s:
            what = "plan" if one.first.node < 0 else f"node {one.first.node}"
            yield Violation(
                "done twice at once",
                f"{what}: {one.first.who} ({one.first.call}, from {one.first.began:.2f}) and"
                f" {one.second.who} ({one.second.call}, from {one.second.began:.2f}) for"
                f" {one.live_s:.2f} s, at most {bound_s:.2f} s are allowed",
                one.first.request,
            )


def _redelivery_explained(evidence: Evidence, began: float, again: float) -> bool:
    disturbing = ("freeze", "kill", "term", "scale")
    faults = any(
        fault.kind.startswith(disturbing) and began - SHADOW_S <= fault.at <= again
        for fault in evidence.faults
    )
    return faults or any(began - SHADOW_S <= at <= again for at, _ in evidence.stalls)


def queues_are_empty(evidence: Evidence) -> Iterator[Violation]:
    for queue, subjects in evidence.left.items():
        for subject in subjects:
            yield Violation("queue not empty", f"{queue}: {subject}")
    for consumer, (unacked, undelivered) in evidence.held.items():
        if unacked or undelivered:
            detail = f"{consumer}: {unacked} unacked, {undelivered} undelivered"
            yield Violation("consumer not done", detail)


def nothing_is_in_flight(evidence: Evidence) -> Iterator[Violation]:
    for name, kinds in evidence.gauges.items():
        for kind, value in kinds.items():
            if value:
                yield Violation("gauge not at 0", f"{name}: {kind} is {value:g}")
    for engine, count in evidence.open_streams.items():
        if count:
            yield Violation("connection left open", f"{engine}: {count}")


def processes_stay_well(evidence: Evidence) -> Iterator[Violation]:
    watch = evidence.watch
    for death in watch.deaths if watch else ():
        yield Violation("died by itself", death)
    for failure in evidence.failures:
        yield Violation("harness", failure)
    for one in watch.growth() if watch else ():
        if one.name.startswith(("nats", "engine")):
            continue  # caches and connections grow with the load; and they are not ours
        limit_mib = one.first_mib * (1 + GROWTH_SHARE) + GROWTH_MIB
        if one.last_mib > limit_mib:
            grew = f"{one.name}: {one.first_mib:.0f} → {one.last_mib:.0f} MiB"
            yield Violation("memory grows", f"{grew} in {one.span_s:.0f} s")
        if one.last_files > one.first_files + FILES:
            files = f"{one.name}: {one.first_files:.0f} → {one.last_files:.0f} open files"
            yield Violation("files leak", files)


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
    processes_stay_well,
)
