"""One more request is taken exactly while there is room for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proto.errors import QueueUnavailable
from services.planner.admission import Admission, AdmissionLimits, refusal
from services.runtime.load import Load

LIMITS = AdmissionLimits(max_open_requests=10, full_share=0.9)
SHARES = st.floats(0, 1.5)


@given(st.builds(Load, st.integers(0, 20), SHARES, SHARES))
def test_a_request_is_refused_exactly_when_a_limit_is_reached(load: Load) -> None:
    reached = load.open_requests >= 10 or max(load.events_share, load.nodes_share) >= 0.9
    busy = refusal(load, LIMITS)
    assert (busy is not None) == reached
    if busy:
        assert busy.retryable
        assert busy.retry_after_s


def test_the_refusal_says_what_is_full() -> None:
    said = [
        refusal(load, LIMITS)
        for load in (Load(10), Load(0, events_share=0.95), Load(0, nodes_share=1.0))
    ]
    assert [str(busy).partition(": ")[2] for busy in said] == [
        "10 requests are open, the limit is 10",
        "the event log is 95% full",
        "the queue of nodes is 100% full",
    ]


async def test_what_was_let_in_since_the_last_look_counts() -> None:
    async def eight_open() -> Load:
        return Load(open_requests=8)

    admission = Admission(eight_open, LIMITS)
    await admission.look()
    for _ in range(2):
        assert admission.refusal() is None
        admission.let_in()
    assert admission.refusal()
    await admission.look()
    assert admission.refusal() is None


async def test_without_an_answer_the_last_figures_stand() -> None:
    answers = [Load(open_requests=10)]

    async def one_answer() -> Load:
        if not answers:
            raise QueueUnavailable("gone")
        return answers.pop()

    admission = Admission(one_answer, LIMITS)
    for _ in range(2):
        await admission.look()
        assert admission.refusal()
