"""The same done by two at once, which no mere luck may hide: each overlap needs its reason.

Overlapping calls for one node (or plan) of a request are counted whatever their attempts: a
thawed worker that goes on with attempt 1 beside attempt 2 does what nobody needs, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.chaos.calls import EngineCall, Overlap, overlaps
from tests.chaos.evidence import Evidence
from tests.chaos.kinds import Fault
from tests.chaos.violations import Violation

#: How much longer than the ack wait two live processes may do the same: a mark may be late,
#: and the word to stop is looked for at a third of the ack wait.
OVERLAP_MARGIN_S: Final = 1.0
#: Between two calls for the same thing without a reason: one ends as the other begins.
UNEXPLAINED_S: Final = 0.25
#: A restarted NATS brings work back, and takes that long to be what it was.
NATS_SHADOW_S: Final = 12.0
#: A process that was told to end gives back what it has within its drain time.
DRAIN_S: Final = 6.0
#: A thawed process begins with what it was sent while it was frozen.
THAW_S: Final = 1.0


def nothing_is_done_twice_at_once(evidence: Evidence) -> Iterator[Violation]:
    for one in overlaps(evidence.calls, evidence.frozen):
        reason = reason_of(evidence, one)
        bound_s = evidence.options.ack_wait_s + OVERLAP_MARGIN_S if reason else UNEXPLAINED_S
        if one.live_s > bound_s:
            why = f"after {reason}" if reason else "with no fault that explains it"
            what = f"{_told(one.first)} and {_told(one.second)} for {one.live_s:.2f} s"
            detail = f"{what}, {why}; at most {bound_s:.2f} s are allowed"
            yield Violation("done twice at once", detail, one.first.request)


def reason_of(evidence: Evidence, overlap: Overlap) -> str | None:
    """Return what explains that the same was delivered a second time, if anything does.

    Args:
        evidence: of the run.
        overlap: of two calls for the same.
    """
    earlier = _earlier(evidence, overlap)
    for fault in evidence.faults:
        if _explains(fault, overlap, earlier):
            return f"{fault.kind} of {fault.target} at {fault.at:.2f}"
    began, again = overlap.first.began, overlap.second.began
    # Marks come at a third of the ack wait: who stood still for less has missed none.
    least_s = evidence.options.ack_wait_s / 3
    for at, lag_s in evidence.stalls:
        if lag_s >= least_s and at <= again and at + lag_s >= began:
            return f"a stall of the machine at {at:.2f}"
    return None


def _earlier(evidence: Evidence, overlap: Overlap) -> list[EngineCall]:
    """Return the calls for the first one's attempt, if the second is for another attempt.

    Whoever of them was thawed may have told of a failure that began the other attempt.
    """
    first, second = overlap.first, overlap.second
    if first.attempt == second.attempt:
        return []
    same = (first.request, first.node, first.attempt)
    return [
        call
        for call in evidence.calls
        if (call.request, call.node, call.attempt) == same and call.began <= second.began
    ]


def _explains(fault: Fault, overlap: Overlap, earlier: list[EngineCall]) -> bool:
    began, again = overlap.first.began, overlap.second.began
    frozen, whom = fault.kind.startswith("freeze"), fault.target
    if whom.startswith("nats"):
        return fault.touches(began, again, after_s=NATS_SHADOW_S)
    if whom == overlap.first.who:  # it fell silent, and its work went to another
        ends = fault.kind.startswith(("term", "scale"))
        if fault.touches(began, again, after_s=DRAIN_S if ends else 0.0):
            return True
    # What the second was sent while it was frozen has gone to the first meanwhile.
    if (
        frozen
        and fault.target == overlap.second.who
        and fault.touches(again, again, after_s=THAW_S)
    ):
        return True
    return frozen and any(whom == call.who and fault.touches(call.began, again) for call in earlier)


def _told(call: EngineCall) -> str:
    what = "plan" if call.node < 0 else f"node {call.node} attempt {call.attempt}"
    return f"{what} by {call.who} ({call.call}, from {call.began:.2f})"
