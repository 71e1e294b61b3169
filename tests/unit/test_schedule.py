"""What is handed to the pools, and in which order; and what is known of their load."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from proto.messages import Fact, LoadAnnounced
from proto.names import Pool
from services.assembler.graph import Graph, Release
from services.assembler.schedule import EAGER_NODES, Held, Schedule
from services.runtime.pool_load import BLIND_S, EXPIRES_S, LoadBoard, PoolLoad
from tests.facts import accepted, decoded, plan, planned

#: Six nodes, of which the fourth needs two and the last needs that.
NEEDS = ((), (), (), (1, 2), (), (4,))


def graph(request: str, *, owner: str = "", at: float = 0.0, nodes: int = len(NEEDS)) -> Graph:
    """Return the graph of an accepted request whose plan is complete."""
    found = Graph(request)
    told: list[Fact] = [accepted(request, at=at, owner=owner, mode="sgd")]
    told += [planned(id_, needs, request=request) for id_, needs in enumerate(NEEDS[:nodes], 1)]
    for fact in (*told, plan(range(1, nodes + 1), request=request)):
        found.fold(fact, at)
    return found


def ignore(_: Release) -> None: ...


def hold(schedule: Schedule, of: Graph) -> None:
    for node in of.due():
        schedule.hold(Held(of, node, Pool.LARGE, 0.0, ignore))


def names(taken: list[Held]) -> list[tuple[str, int]]:
    return [(held.graph.request, held.node) for held in taken]


@given(
    slots=st.integers(1, 9),
    owners=st.lists(st.sampled_from("abc"), min_size=1, max_size=9),
    others=st.integers(0, 20),
    seed=st.integers(0, 2**16),
)
def test_every_request_ends_in_any_order_of_results(
    slots: int, owners: list[str], others: int, seed: int
) -> None:
    random, schedule = Random(seed), Schedule(1.0)
    graphs = {f"r{n}": graph(f"r{n}", owner=owner, at=n) for n, owner in enumerate(owners)}
    # Other assemblers that never let go of what they have: our share must do.
    load = PoolLoad(slots=slots, released=others, held=others)
    running: list[tuple[str, int]] = []
    for one in graphs.values():
        hold(schedule, one)
    for _ in range(len(graphs) * len(NEEDS)):
        running += names(schedule.take(Pool.LARGE, load))
        assert running, "held although nothing runs"
        assert len(running) <= max(1, slots)
        request, node = running.pop(random.randrange(len(running)))
        graphs[request].fold(decoded(node, request=request), 0.0)
        schedule.done(request, node)
        hold(schedule, graphs[request])
        schedule.moved(request)
    assert all(one.is_complete for one in graphs.values())
    word = schedule.load(Pool.LARGE, "me")
    assert (word.held, word.released) == (0, 0)


def test_no_slot_is_idle_while_a_node_is_held() -> None:
    schedule = Schedule(1.0)
    hold(schedule, graph("wide"))
    assert len(schedule.take(Pool.LARGE, PoolLoad(slots=3))) == 3
    assert schedule.take(Pool.LARGE, PoolLoad(slots=3)) == []
    assert len(schedule.take(Pool.LARGE, PoolLoad(slots=4))) == 1


def test_a_few_more_than_the_slots_are_handed_over() -> None:
    schedule = Schedule(1.25)
    for number in range(4):
        hold(schedule, graph(f"r{number}"))
    assert len(schedule.take(Pool.LARGE, PoolLoad(slots=8))) == 10


def test_all_is_handed_over_where_the_slots_are_not_known_or_it_is_wished() -> None:
    for schedule, load in (
        (Schedule(1.25), PoolLoad(slots=None, released=99)),
        (Schedule(0), PoolLoad(slots=1, released=99)),
    ):
        hold(schedule, graph("r"))
        assert len(schedule.take(Pool.LARGE, load)) == 4


def test_a_pool_without_a_worker_does_not_fill_the_stream_of_nodes() -> None:
    schedule, dead = Schedule(1.25), PoolLoad(slots=None)
    ready = 2 * EAGER_NODES // 4
    for number in range(ready):
        hold(schedule, graph(f"r{number}"))
    assert len(schedule.take(Pool.LARGE, dead)) == EAGER_NODES
    assert schedule.take(Pool.LARGE, dead) == []
    # Somebody decodes after all: it goes on, node by node.
    schedule.done("r0", 1)
    assert len(schedule.take(Pool.LARGE, dead)) == 1
    last = [Held(graph("last"), 1, Pool.LARGE, 0.0, ignore)]
    assert not schedule.passes(last, Pool.LARGE, dead)


def test_others_leave_us_our_share() -> None:
    schedule = Schedule(1.0)
    for number in range(3):
        hold(schedule, graph(f"r{number}"))
    # They have all eight slots and hold as much again; we hold 12 of 28 nodes.
    assert len(schedule.take(Pool.LARGE, PoolLoad(slots=8, released=8, held=8))) == 8 * 12 // 28


def test_what_a_flood_holds_does_not_keep_others_waiting() -> None:
    schedule, load = Schedule(1.0), PoolLoad(slots=8)
    for number in range(50):
        hold(schedule, graph(f"flood{number}", owner="flood", at=number))
    schedule.take(Pool.LARGE, load)
    hold(schedule, graph("other", owner="other", at=100))
    got: Counter[str] = Counter()
    for request, node in [(f"flood{n}", node) for n in range(2) for node in (1, 2, 3, 5)]:
        schedule.done(request, node)
        got.update(held.owner for held in schedule.take(Pool.LARGE, load))
    assert got["other"] >= 4


def test_the_longest_path_goes_first_and_old_requests_before_new_ones() -> None:
    schedule = Schedule(1.0)
    hold(schedule, graph("new", at=1000.0))
    hold(schedule, graph("old", at=0.0))
    order = names(schedule.take(Pool.LARGE, PoolLoad(slots=8)))
    assert [request for request, _ in order] == ["old"] * 4 + ["new"] * 4
    assert {node for _, node in order[:2]} == {1, 2}  # the fourth needs them


def test_a_request_near_its_end_goes_before_one_that_came_with_it() -> None:
    schedule = Schedule(1.0)
    late, early = graph("late", nodes=3), graph("early", nodes=3)
    for node in (1, 2):
        late.fold(decoded(node, request="late"), 0.0)
    hold(schedule, early)
    hold(schedule, late)
    assert names(schedule.take(Pool.LARGE, PoolLoad(slots=1)))[0][0] == "late"


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["hold", "done", "forget", "take"]))))
def test_the_accounts_hold_whatever_comes(steps: list[tuple[int, str]]) -> None:
    schedule = Schedule(1.0)
    held: set[tuple[str, int]] = set()
    released: set[tuple[str, int]] = set()
    for number, what in steps:
        request = f"r{number}"
        ours = {(request, node) for node in (1, 2, 3, 5)}
        if what == "hold":
            hold(schedule, graph(request))
            held, released = held | ours, released - ours
        elif what == "done":
            schedule.done(request, 1)
            held, released = held - {(request, 1)}, released - {(request, 1)}
        elif what == "forget":
            schedule.forget(request)
            held, released = held - ours, released - ours
        else:
            taken = set(names(schedule.take(Pool.LARGE, PoolLoad(slots=3))))
            assert taken <= held
            held, released = held - taken, released | taken
        word = schedule.load(Pool.LARGE, "me")
        assert (word.held, word.released) == (len(held), len(released))


# --- the board ------------------------------------------------------------------------


def word(source: str, slots: int = 0, released: int = 0, held: int = 0) -> LoadAnnounced:
    return LoadAnnounced(source=source, pool=Pool.SMALL, slots=slots, released=released, held=held)


def test_words_add_up_and_expire() -> None:
    board = LoadBoard()
    board.heard(word("w1", slots=4), 0.0)
    board.heard(word("w2", slots=8), 1.0)
    board.heard(word("a1", released=3, held=2), 1.0)
    assert board.load(Pool.SMALL, 1.0) == PoolLoad(12, 3, 2)
    assert board.load(Pool.SMALL, 1.0, without="a1") == PoolLoad(12, 0, 0)
    assert board.load(Pool.SMALL, EXPIRES_S + 0.5) == PoolLoad(8, 3, 2)
    assert board.load(Pool.SMALL, 99.0) == PoolLoad(None, 0, 0)
    assert board.load(Pool.LARGE, 1.0).slots is None


def test_a_worker_that_tells_of_no_slots_makes_them_unknown() -> None:
    board = LoadBoard()
    board.heard(word("w1", slots=4), 0.0)
    board.worked(Pool.SMALL, "w1", 1.0)
    assert board.load(Pool.SMALL, 1.0).slots == 4
    board.worked(Pool.SMALL, "older", 1.0)
    board.heard(word("w1", slots=4), BLIND_S)
    assert board.load(Pool.SMALL, BLIND_S).slots is None
    assert board.load(Pool.SMALL, BLIND_S + 1.0).slots == 4


def test_nodes_a_slot_are_not_known_without_slots() -> None:
    assert PoolLoad(4, 3, 3).nodes_a_slot == 1.5
    assert PoolLoad(None, 3, 3).nodes_a_slot is None


def test_a_draining_worker_takes_its_slots_along() -> None:
    board = LoadBoard()
    board.heard(word("w1", slots=4), 0.0)
    board.heard(word("w1", slots=0), 1.0)
    board.worked(Pool.SMALL, "w1", 1.5)
    board.heard(word("w2", slots=2), 1.5)
    assert board.load(Pool.SMALL, 2.0).slots == 2


SAID = st.tuples(
    st.floats(0, 5), st.sampled_from(["w1", "w2", "a1", "a2"]), st.integers(0, 4), st.booleans()
)


@settings(max_examples=50)
@given(st.lists(SAID, max_size=8))
def test_the_load_is_that_of_the_words_that_count_however_often_it_is_asked_for(
    said: list[tuple[float, str, int, bool]],
) -> None:
    asked_often, now_s = LoadBoard(), 0.0
    history: list[tuple[float, str, int, bool]] = []
    for passes_s, source, slots, is_word in said:
        now_s += passes_s
        history.append((now_s, source, slots, is_word))
        _tell(asked_often, *history[-1])
        for later_s in sorted((0.0, passes_s, EXPIRES_S)):
            asked_once = LoadBoard()
            for one in history:
                _tell(asked_once, *one)
            asked = asked_often.load(Pool.LARGE, now_s + later_s, without="a1")
            assert asked == asked_once.load(Pool.LARGE, now_s + later_s, without="a1")
        now_s += max(passes_s, EXPIRES_S)  # it was asked for what will be then


def _tell(board: LoadBoard, now_s: float, source: str, slots: int, is_word: bool) -> None:
    if is_word:
        word = LoadAnnounced(source=source, pool=Pool.LARGE, slots=slots, released=slots, held=1)
        board.heard(word, now_s)
    else:
        board.worked(Pool.LARGE, source, now_s)


def test_what_has_ended_is_not_kept_whether_or_not_others_are_held() -> None:
    schedule = Schedule(1.0)
    for held_beside in (0, 1):
        if held_beside:
            schedule.hold(Held(graph("stays"), 1, Pool.LARGE, 0.0, _nothing))
        ended = []
        for number in range(100):
            one = graph(f"r{number}")
            ended.append(weakref.ref(one))
            schedule.hold(Held(one, 1, Pool.LARGE, 0.0, _nothing))
            schedule.forget(f"r{number}")
            del one
        gc.collect()
        assert not any(one() for one in ended)
    assert [one.graph.request for one in schedule.take(Pool.LARGE, PoolLoad())] == ["stays"]


def _nothing(_: Release) -> None:
    pass
