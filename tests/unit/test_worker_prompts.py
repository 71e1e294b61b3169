"""The node's call: shared text first and byte-identical, the node's own last."""

from __future__ import annotations

import pytest

from proto.messages import DecodeNode, NodeSpec, NodeText, Sampling, Turn
from proto.names import Pool
from services.runtime.calls import ChatCall
from services.worker.prompts import DIRECT_MAX_TOKENS, node_call

LINES = ("1.  Rent |easy short", "2. Team | hard medium", "3. Advice | hard medium needs 1,2")
TITLES = ("1.  Rent", "2. Team", "3. Advice")


def work(
    number: int,
    lines: int = 3,
    predecessors: tuple[NodeText, ...] = (),
    sampling: Sampling | None = None,
) -> DecodeNode:
    return DecodeNode(
        request="r1",
        node=NodeSpec(id=number, summary=f"Point {number}"),
        attempt=1,
        pool=Pool.LARGE,
        mode="sgd",
        question="Shall we\n give up the office?",
        skeleton=LINES[:lines],
        predecessors=predecessors,
        sampling=sampling or Sampling(),
        deadline_at=0,
    )


def text_of(call: ChatCall) -> str:
    return "\x00".join(message.content for message in call.messages)


def shared(one: ChatCall, other: ChatCall) -> str:
    first, second = text_of(one), text_of(other)
    same = next(
        (k for k, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), len(first)
    )
    return first[:same]


def test_without_the_prefix_layout_two_nodes_share_nothing_but_their_instructions_beginning() -> (
    None
):
    one, other = (work(n).model_copy(update={"without": ("prefix",)}) for n in (1, 2))
    assert shared(node_call(one), node_call(other)) == "[Write part "
    assert len(text_of(node_call(one))) - len(text_of(node_call(work(1)))) < 40


TEXTS = (
    NodeText(id=1, summary="Point 1", text="Rent is high."),
    NodeText(id=2, summary="Point 2", text="Teams meet."),
)


def test_siblings_share_all_up_to_their_own_instruction() -> None:
    same = shared(node_call(work(1)), node_call(work(2)))
    assert same.endswith("\n".join(TITLES) + "\n\n[Write part ")


def test_an_early_node_sees_a_prefix_of_what_a_later_one_sees() -> None:
    same = shared(node_call(work(1, lines=1)), node_call(work(3)))
    assert same.endswith(f"Parts of the answer:\n{TITLES[0]}\n")


def test_nodes_with_the_same_first_predecessor_share_its_text() -> None:
    same = shared(
        node_call(work(3, predecessors=TEXTS[:1])), node_call(work(4, predecessors=TEXTS))
    )
    assert "Rent is high." in same


def test_predecessors_are_earlier_turns_in_ascending_id() -> None:
    turns = node_call(work(3, predecessors=TEXTS[::-1])).messages[-5:]
    assert [turn.role for turn in turns] == ["user", "assistant", "user", "assistant", "user"]
    assert [turn.content for turn in turns[1:]] == [
        "Rent is high.",
        "[Write part 2: Point 2 (3 sentences)]",
        "Teams meet.",
        "[Write part 3: Point 3 (3 sentences)]",
    ]


def test_a_node_continues_the_chat_in_which_its_first_predecessor_was_written() -> None:
    before = node_call(work(1)).messages
    after = node_call(work(3, predecessors=TEXTS)).messages
    assert after[: len(before)] == before


def test_roles_alternate_because_chat_templates_insist() -> None:
    roles = [turn.role for turn in node_call(work(3, predecessors=TEXTS)).messages]
    assert roles == ["system"] + ["user", "assistant"] * (len(roles) // 2 - 1) + ["user"]


def test_different_requests_share_the_rules() -> None:
    other = work(1).model_copy(update={"question": "Why?", "skeleton": ()})
    assert node_call(work(1)).messages[:-1] == node_call(other).messages[:-1]
    assert len(node_call(other).messages) > 1


def test_the_direct_node_is_the_question_and_nothing_else() -> None:
    call = node_call(work(0, lines=0))
    assert [(m.role, m.content) for m in call.messages] == [("user", work(0).question)]
    assert call.stop == ()
    assert call.max_tokens > node_call(work(1)).max_tokens


def with_budget(number: int, tokens: int) -> DecodeNode:
    node = NodeSpec(id=number, summary=f"Point {number}", budget_tokens=tokens)
    return work(number).model_copy(update={"node": node})


@pytest.mark.parametrize(
    ("tokens", "length"), [(1, "1 sentence"), (40, "2 sentences"), (100, "5 sentences")]
)
def test_the_budget_is_asked_for_in_sentences_and_leaves_room_to_end_one(
    tokens: int, length: str
) -> None:
    call = node_call(with_budget(3, tokens))
    assert call.messages[-1].content.endswith(f"[Write part 3: Point 3 ({length})]")
    assert 2 * tokens < call.max_tokens <= 2 * tokens + 32


def test_an_earlier_turn_is_asked_for_as_it_was_when_it_was_written() -> None:
    text = NodeText(id=1, summary="Point 1", text="Rent is high.", budget_tokens=40)
    before = node_call(with_budget(1, 40)).messages
    assert node_call(work(3, predecessors=(text,))).messages[: len(before)] == before


def test_the_engine_stops_where_a_model_goes_on_with_the_plan() -> None:
    assert node_call(work(1)).stop == (
        "\n[Write part",
        "\n2. Team\n",
        "\n2. Team |",
    )
    assert node_call(work(3)).stop == ("\n[Write part",)


def test_a_list_of_the_parts_own_is_no_reason_to_stop() -> None:
    text = "Do this:\n1. Rent daily.\n2. Team up with others.\n2. Team: all of it."
    assert not any(stop in text for stop in node_call(work(1)).stop)


@pytest.mark.parametrize("asked", [None, 1, 50, 112, 113, 4096])
def test_the_clients_limit_is_the_direct_answers_and_makes_no_part_longer(
    asked: int | None,
) -> None:
    sampling = Sampling(max_tokens=asked)
    part, usual = node_call(work(1, sampling=sampling)), node_call(work(1))
    assert part.max_tokens == min(asked or usual.max_tokens, usual.max_tokens)
    direct = node_call(work(0, sampling=sampling))
    assert direct.max_tokens == (asked or DIRECT_MAX_TOKENS)


def test_what_the_client_asks_of_the_sampling_overrides_the_defaults() -> None:
    asked = Sampling(max_tokens=7, temperature=0.5, top_p=0.9, seed=0)
    for number in (0, 1):
        call = node_call(work(number, sampling=asked))
        assert (call.max_tokens, call.temperature, call.top_p, call.seed) == (7, 0.5, 0.9, 0)
        plain = node_call(work(number))
        assert (plain.temperature, plain.top_p, plain.seed) == (0.0, None, None)


def test_the_rules_are_short_because_prefill_is_slow_on_cpus() -> None:
    assert sum(len(m.content) for m in node_call(work(1)).messages[:-1]) < 1500


CONTEXT = (
    Turn(role="system", content="Be brief."),
    Turn(role="user", content="Hello."),
    Turn(role="assistant", content="Hello to you."),
)


def test_the_direct_node_is_the_conversation_as_it_was_held() -> None:
    call = node_call(work(0).model_copy(update={"context": CONTEXT}))
    assert [(turn.role, turn.content) for turn in call.messages] == [
        ("system", "Be brief."),
        ("user", "Hello."),
        ("assistant", "Hello to you."),
        ("user", "Shall we\n give up the office?"),
    ]


def test_a_part_knows_what_was_said_before_the_question() -> None:
    text = text_of(node_call(work(1).model_copy(update={"context": CONTEXT})))
    before = "Be brief.\n\nConversation so far:\n\nUser: Hello.\n\nAssistant: Hello to you.\n\n"
    assert before + "Question: Shall we" in text
