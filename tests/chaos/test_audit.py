"""The audit can fail: each promise that is broken in made-up evidence is found, and only then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from proto.errors import NodeGaveUp
from proto.messages import (
    DeadLetter,
    DecodeNode,
    ErrorInfo,
    Fact,
    NodeFailed,
    NodeSpec,
    RequestFailed,
    SubmitRequest,
)
from proto.names import Pool
from services.runtime.facts import StoredFact
from tests.chaos.calls import EngineCall, note_attempts
from tests.chaos.checks import failures_are_explained
from tests.chaos.doubles import nothing_is_done_twice_at_once
from tests.chaos.evidence import Evidence
from tests.chaos.kinds import WEIGHTS, Fault, kinds
from tests.chaos.letters import the_dead_have_letters
from tests.chaos.load import Sent
from tests.chaos.measure import CancelTook, Figures
from tests.chaos.options import Options
from tests.chaos.remains import no_consumer_is_left, nobody_is_connected_still
from tests.chaos.violations import Violation
from tests.chaos.watch import Sample, growth_of
from tests.facts import REQUEST, accepted, decoded, failed

FIRST, SECOND = "worker-large-1", "worker-large-2"


def found(violations: Iterator[Violation]) -> list[str]:
    return [violation.check for violation in violations]


# --- twice at once ------------------------------------------------------------------------


def called_twice(*faults: Fault, live_s: float, attempts: tuple[int, int] = (1, 1)) -> Evidence:
    """A call from 100 on, and a second from 104 on, that overlap for `live_s`."""
    calls = [
        EngineCall("e1.1", REQUEST, 3, FIRST, "normal", 100.0, 104 + live_s, False, 9, attempts[0]),
        EngineCall("e2.1", REQUEST, 3, SECOND, "normal", 104.0, 120.0, False, 9, attempts[1]),
    ]
    return Evidence(Options(ack_wait_s=2), {}, calls=calls, faults=list(faults))


@pytest.mark.parametrize(
    "fault",
    [
        Fault("freeze_worker", FIRST, 101, 105),
        Fault("kill_worker", FIRST, 101, 102),
        Fault("kill_nats", "nats-1", 95, 96),
        Fault("freeze_nats", "nats-1", 101, 106),
        Fault("term_worker", FIRST, 98, 99),
        Fault("freeze_worker", SECOND, 97, 104),
    ],
)
def test_a_fault_that_hit_the_first_caller_or_nats_explains_a_redelivery(fault: Fault) -> None:
    assert found(nothing_is_done_twice_at_once(called_twice(fault, live_s=2.5))) == []
    assert found(nothing_is_done_twice_at_once(called_twice(fault, live_s=3.5)))


@pytest.mark.parametrize(
    "fault",
    [
        Fault("freeze_worker", "worker-large-3", 101, 105),
        Fault("freeze_assembler", "assembler-1", 101, 105),
        Fault("kill_worker", SECOND, 101, 102),
        Fault("freeze_worker", FIRST, 90, 95),
        Fault("freeze_worker", FIRST, 105, 106),
        Fault("scale_up", "assembler-4", 101, 102),
        Fault("engine_slow", "engine-large-1", 101, 105),
    ],
)
def test_a_fault_elsewhere_or_at_another_time_explains_none(fault: Fault) -> None:
    assert found(nothing_is_done_twice_at_once(called_twice(fault, live_s=0.2))) == []
    assert found(nothing_is_done_twice_at_once(called_twice(fault, live_s=0.5)))


@pytest.mark.parametrize(("lag_s", "explained"), [(0.4, False), (0.8, True)])
def test_only_a_stall_in_which_marks_were_missed_explains_one(
    lag_s: float, explained: bool
) -> None:
    evidence = called_twice(live_s=1.0)
    evidence.stalls = [(102.0, lag_s)]
    assert bool(found(nothing_is_done_twice_at_once(evidence))) != explained


def test_the_frozen_time_is_not_counted_but_what_a_thawed_worker_does_is() -> None:
    fault = Fault("freeze_worker", FIRST, 101, 108)
    for live_s, bad in ((6.5, False), (8.0, True)):  # thawed at 108: 2.5 s and 4 s
        evidence = called_twice(fault, live_s=live_s, attempts=(1, 2))
        evidence.frozen = {FIRST: [(101.0, 108.0)]}
        said = [one.detail for one in nothing_is_done_twice_at_once(evidence)]
        assert bool(said) == bad
        assert all("attempt 1" in one and "attempt 2" in one for one in said)


def test_a_frozen_third_who_ran_the_first_attempt_explains_the_next_one_for_a_time() -> None:
    fault = Fault("freeze_worker", "worker-large-3", 98, 103)
    for live_s, bad in ((2.5, False), (3.5, True)):
        evidence = called_twice(fault, live_s=live_s, attempts=(1, 2))
        third = EngineCall("e3.1", REQUEST, 3, "worker-large-3", "normal", 97, 99, True, 3, 1)
        evidence.calls.append(third)
        said = found(nothing_is_done_twice_at_once(evidence))
        assert bool(said) == bad
        evidence.calls[1].attempt = 1  # the same attempt again has no such reason
        assert found(nothing_is_done_twice_at_once(evidence))


def test_a_calls_attempt_is_the_one_that_its_worker_had_begun_last(tmp_path: Path) -> None:
    line = (
        '{{"event":"node_started","request":"r1","node":3,"attempt":{},'
        '"timestamp":"1970-01-01T00:01:{}Z"}}\n'
    )
    log = tmp_path / "w.log"
    log.write_text(line.format(1, "30.5") + "not json\n" + line.format(2, "45.5"))
    calls = [EngineCall("e", "r1", 3, "w", "normal", at) for at in (80.0, 91.0, 106.0)]
    note_attempts(calls, lambda _: log)
    assert [call.attempt for call in calls] == [0, 1, 2]


# --- dead letters and failures ------------------------------------------------------------


def stored(*facts: Fact) -> dict[str, list[StoredFact]]:
    return {REQUEST: [StoredFact(fact, n, 100.0 + n, {}) for n, fact in enumerate(facts)]}


def letter(attempts: int = 4, node: int = 1) -> DeadLetter:
    return DeadLetter(
        request=REQUEST,
        node=node,
        attempts=attempts,
        error=ErrorInfo.of(NodeGaveUp("x")),
        work=DecodeNode(
            request=REQUEST,
            node=NodeSpec(id=node, summary="s", difficulty="hard"),
            attempt=attempts,
            pool=Pool.LARGE,
            mode="sgd",
            question="q",
            deadline_at=1.0,
        ),
    )


FOUR = [failed(1, attempt) for attempt in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("facts", "letters", "right"),
    [
        (FOUR, [letter()], True),
        (FOUR, [], False),
        (FOUR, [letter(), letter()], False),
        (FOUR, [letter(), letter(1, node=2)], False),
        (FOUR, [letter(3)], False),
        (FOUR[:3], [], True),
        (FOUR[:3], [letter(3)], False),
        ([failed(1, 1, retryable=False)], [letter(1)], True),
        ([failed(1, 1, retryable=False)], [], False),
        ([*FOUR, decoded(1)], [], True),
        ([*FOUR, decoded(1)], [letter()], True),
        ([], [letter()], False),
    ],
)
def test_each_dead_node_has_one_letter_and_no_other_has_one(
    facts: list[NodeFailed], letters: list[DeadLetter], right: bool
) -> None:
    evidence = Evidence(Options(), {}, facts=stored(accepted(), *facts), letters=letters)
    assert (found(the_dead_have_letters(evidence)) == []) == right


@pytest.mark.parametrize(
    ("fault", "explained"),
    [
        (Fault("engine_hang", "engine-large-1", 95, 101), True),
        (Fault("engine_error", "engine-large-1", 60, 65), False),
        (Fault("kill_engine", "engine-large-1", 101, 102), True),
        (Fault("kill_planner", "planner-1", 101, 102), False),
        (Fault("engine_cut", "engine-large-1", 150, 152), False),
    ],
)
def test_a_node_gives_up_only_in_the_time_of_an_engines_fault(
    fault: Fault, explained: bool
) -> None:
    end = RequestFailed(request=REQUEST, error=ErrorInfo.of(NodeGaveUp("x")))
    sent = Sent(REQUEST, SubmitRequest(question="?", on_failure="fail"), False, 99.0, stored=True)
    facts = stored(accepted(), *FOUR, end)
    evidence = Evidence(Options(), {REQUEST: sent}, facts=facts, faults=[fault])
    assert (found(failures_are_explained(evidence)) == []) == explained


# --- what is left -------------------------------------------------------------------------


def test_connections_and_consumers_that_nobody_owns_are_found() -> None:
    evidence = Evidence(Options(), {}, connections={"a": 1, "b": 1}, expected={"a", "b"})
    assert found(nobody_is_connected_still(evidence)) == found(no_consumer_is_left(evidence)) == []
    evidence.connections = {"a": 2, "x": 1}
    evidence.consumers_left = ["mine"]
    assert len(found(nobody_is_connected_still(evidence))) == 3
    assert found(no_consumer_is_left(evidence)) == ["consumer left"]


def test_growth_is_told_from_the_second_third_on() -> None:
    samples = [Sample(float(at), 10.0 if at < 30 else 20 + at / 10, 5) for at in range(90)]
    growth = growth_of("worker", samples)
    assert [growth.warm_mib, growth.last_mib] == pytest.approx([24.45, 27.45])
    assert growth.kib_each(30) == "+102.4 KiB a request"


def test_a_slow_cancel_is_found_unless_the_machine_stood_still() -> None:
    figures = Figures(cancels={"planning": [CancelTook(100, 0.1, 0.2), CancelTook(110, 0.1, 1.3)]})
    assert [window for window, _ in figures.slow_cancels([])] == ["planning"]
    assert not [*figures.slow_cancels([(110.5, 0.6)])]
    assert [*figures.slow_cancels([(90.0, 0.6)])]


# --- the kinds of fault -------------------------------------------------------------------


def test_each_profile_has_its_own_faults_and_every_kind_is_in_one() -> None:
    single, cluster = kinds(Options()), kinds(Options(profile="cluster"))
    assert {*single, *cluster} == WEIGHTS.keys()
    assert "freeze_nats" in single.keys() - cluster.keys()
    assert {"kill_nats_follower", "freeze_nats_follower"} <= cluster.keys() - single.keys()
    assert "kill_nats" not in kinds(Options(without=("kill_nats",)))
    with pytest.raises(ValueError, match="unknown"):
        kinds(Options(only=("kill_everybody",)))
