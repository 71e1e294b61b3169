"""The planning call: a cacheable prefix, and grammars that allow valid plans only."""

from __future__ import annotations

import re
import sys
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proto.messages import Mode, Turn
from services.planner.gate import MIN_NODES
from services.planner.grammar import MAX_WORDS, grammar, shapes_of
from services.planner.parser import End, PlanLimits, Planned, PlanParser, Shape
from services.planner.prompts import plan_call

PLAN = """graph
1. Cost of rent | easy short
2. Effects on the team | hard medium
3. Advice | hard medium needs 1,2
end"""


def allows(text: str, mode: Mode = "auto", max_nodes: int = 12, done: int = 0) -> bool:
    return re.fullmatch(grammar(mode, max_nodes, done).regex, text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "code",
        "speech",
        PLAN,
        PLAN.replace("\nend", "\n4. 结论和建议 | hard medium needs 3,1\nend"),
        "list\n1. Größe | easy short\n2. U.S. law | hard long\n3. التكلفة | easy long\nend",
    ],
)
def test_the_grammar_allows(text: str) -> None:
    assert allows(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "direct",
        "code\n",
        PLAN + "\n",
        PLAN.removesuffix("\nend"),
        "graph\n1. A | easy short\n2. B | easy short\nend",
        PLAN.replace("1,2", "3"),
        PLAN.replace("1,2", "0"),
        PLAN.replace("2.", "4."),
        PLAN.replace("hard", "harder"),
        PLAN.replace("graph", "list"),
        PLAN.replace("Advice", "Advice: do it"),
        PLAN.replace("Advice", "one two three four five six seven eight nine"),
        PLAN.replace("Advice", "a\tb"),
        PLAN.replace("Advice", ""),
        PLAN.replace("Advice", " "),
        "graph\n" + "".join(f"{k}. A | easy short\n" for k in range(1, 14)) + "end",
    ],
)
def test_the_grammar_refuses(text: str) -> None:
    assert not allows(text)


def test_no_title_that_the_grammar_allows_is_without_a_word() -> None:
    spaces = [char for char in map(chr, range(sys.maxunicode + 1)) if char.isspace()]
    assert [char for char in spaces if allows(PLAN.replace("Advice", char))] == []


@pytest.mark.parametrize(
    "title",
    [
        "one two three four five six seven naïve",
        "How much does it cost to buy €",
        "one two three four five six seven A–B",
        "塑料瓶与可重复使用瓶子的价格",
        "用 Python 写程序",
        "Wie viel kostet ein Haus in der »Stadt«",
        "Chi phí mua pin và lắp các thiết",
        "Як їжа та сон впливають на ваше здоров'я",
        "Сколько стоит жить в большом городе с (детьми)",
        "چرا باید در خانه غذای سالم پخته می\u200cشود",
        "كيف يمكن لمدينة صغيرة أن تشجع الناس",
    ],
)
def test_a_title_of_eight_words_may_be_in_any_language(title: str) -> None:
    assert len(title.split()) <= MAX_WORDS
    assert allows(PLAN.replace("Advice", title))


def test_forced_modes_leave_no_choice_of_the_first_line() -> None:
    assert not allows("code", "sgd")
    assert allows(PLAN, "sgd")
    assert not allows(PLAN, "sot")
    assert allows(PLAN.replace("graph", "list").replace(" needs 1,2", ""), "sot")


def test_the_rest_of_a_half_published_plan() -> None:
    assert allows("3. Advice | hard medium needs 1,2\nend", done=2)
    assert not allows("end", done=2)
    assert allows("end", done=3)
    assert allows("end", done=12)
    assert not allows(PLAN, done=2)


def test_a_client_who_wants_fewer_nodes_than_a_plan_has_gets_fewer() -> None:
    assert allows("graph\n1. A | easy short\n2. B | hard medium needs 1\nend", "sgd", max_nodes=2)
    assert not allows(PLAN, "sgd", max_nodes=2)


class Derivation:
    """Draws a random reply from a GBNF of the subset that `grammar` writes."""

    _PART = re.compile(
        r'\s*(?:"((?:[^"\\]|\\.)*)"|(\[(?:[^\]\\]|\\.)*\])|([a-z]+[0-9]*)|([()|?])|\{(\d+),(\d+)\})'
    )

    def __init__(self, gbnf: str, random: Random) -> None:
        self.rules = dict(line.split(" ::= ", 1) for line in gbnf.splitlines())
        self.random = random

    def rule(self, name: str) -> str:
        parts = [match.groups() for match in self._PART.finditer(self.rules[name])]
        text, rest = self._choice(parts)
        assert not rest
        return text

    def _choice(
        self, parts: list[tuple[str | None, ...]]
    ) -> tuple[str, list[tuple[str | None, ...]]]:
        options = [""]
        while parts and parts[0][3] != ")":
            if parts[0][3] == "|":
                options.append("")
                parts = parts[1:]
                continue
            text, parts = self._repeated(parts)
            options[-1] += text
        return self.random.choice(options), parts

    def _repeated(
        self, parts: list[tuple[str | None, ...]]
    ) -> tuple[str, list[tuple[str | None, ...]]]:
        text, rest = self._atom(parts)
        low, high = 1, 1
        if rest and rest[0][3] == "?":
            low, high, rest = 0, 1, rest[1:]
        elif rest and rest[0][4] is not None:
            low, high, rest = int(rest[0][4]), int(rest[0][5] or 0), rest[1:]
        times = self.random.randint(low, high)
        return "".join([text, *(self._atom(parts)[0] for _ in range(times - 1))][:times]), rest

    def _atom(
        self, parts: list[tuple[str | None, ...]]
    ) -> tuple[str, list[tuple[str | None, ...]]]:
        literal, chars, name, _, *_ = parts[0]
        if literal is not None:
            return literal.replace("\\n", "\n"), parts[1:]
        if chars is not None:
            allowed = [char for char in "aZé界م.'-0" if re.fullmatch(chars, char)]
            return self.random.choice(allowed), parts[1:]
        if name is not None:
            return self.rule(name), parts[1:]
        text, rest = self._choice(parts[1:])
        return text, rest[1:]


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["auto", "sot", "sgd"]),
    st.integers(1, 11),
    st.integers(0, 4),
    st.integers(),
)
def test_whatever_the_grammar_allows_is_a_valid_plan_and_matches_the_regex(
    mode: Mode, max_nodes: int, done: int, seed: int
) -> None:
    done = min(done, max_nodes)
    allowed = grammar(mode, max_nodes, done)
    reply = Derivation(allowed.gbnf, Random(seed)).rule("root")
    assert re.fullmatch(allowed.regex, reply)
    lines = [f"{number}. Point | easy short" for number in range(1, done + 1)]
    parser = PlanParser(PlanLimits(max_nodes=max_nodes), done=lines)
    items = parser.feed(reply) + parser.close()
    assert items[-1] == End()
    shapes = [item.kind for item in items if isinstance(item, Shape)]
    assert shapes == [] if done else shapes[0] in shapes_of(mode)
    count = done + sum(isinstance(item, Planned) for item in items)
    assert shapes == ["direct"] or min(MIN_NODES, max_nodes) <= count <= max_nodes


def test_the_question_stands_last_behind_a_prefix_that_is_the_same_for_all() -> None:
    one = plan_call("Why?", mode="auto", max_nodes=12).messages
    other = plan_call("How?", mode="auto", max_nodes=4).messages
    assert one[:-1] == other[:-1]
    assert (one[-1].role, one[-1].content) == ("user", "Why?")


def test_the_examples_are_plans_that_the_grammar_allows() -> None:
    replies = [
        m.content
        for m in plan_call("Why?", mode="auto", max_nodes=12).messages
        if m.role == "assistant"
    ]
    assert all(allows(reply) for reply in replies)
    assert {reply.split("\n")[0] for reply in replies} >= {"code", "list", "graph"}


def test_the_prompt_is_short_because_prefill_is_slow_on_cpus() -> None:
    assert sum(len(m.content) for m in plan_call("", mode="auto", max_nodes=12).messages) < 1600


def test_a_planner_that_takes_over_shows_the_published_lines_byte_for_byte() -> None:
    done = ["1.  Odd   spacing |easy", "2. B | hard medium"]
    call = plan_call("Why?", mode="auto", max_nodes=12, done_lines=done)
    fresh = plan_call("Why?", mode="auto", max_nodes=12)
    assert call.messages[: len(fresh.messages)] == fresh.messages
    assert call.messages[-2].content == "graph\n" + "\n".join(done)
    assert call.grammar == grammar("auto", 12, 2)


def test_the_reply_is_bounded() -> None:
    assert plan_call("Why?", mode="auto", max_nodes=12).max_tokens < 700
    assert (
        plan_call("Why?", mode="auto", max_nodes=2, done_lines=["1. A | easy short"] * 2).max_tokens
        > 2
    )


@pytest.mark.parametrize("max_nodes", [1, 3, 12, 64])
def test_the_grammar_stays_small(max_nodes: int) -> None:
    allowed = grammar("auto", max_nodes)
    assert len(allowed.gbnf) < 45_000
    assert len(allowed.regex) < 85_000
    re.compile(allowed.regex)


def test_the_plan_is_made_with_what_was_said_before() -> None:
    context = (Turn(role="system", content="Be brief."), Turn(role="user", content="Hello."))
    last = plan_call("Why?", mode="auto", max_nodes=12, context=context).messages[-1].content
    assert last.endswith("Be brief.\n\nConversation so far:\n\nUser: Hello.\n\nQuestion: Why?")


@pytest.mark.parametrize(("mode", "word"), [("auto", "graph"), ("sgd", "graph"), ("sot", "list")])
def test_a_planner_that_takes_over_goes_on_in_the_form_that_was_asked_for(
    mode: Mode, word: str
) -> None:
    call = plan_call("Why?", mode=mode, max_nodes=12, done_lines=["1. A | easy short"])
    assert call.messages[-2].content == f"{word}\n1. A | easy short"
    assert call.grammar
    assert ("needs" in call.grammar.regex) == ("needs" in call.grammar.gbnf) == (word == "graph")
