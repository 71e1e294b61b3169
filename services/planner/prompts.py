"""The planning call: a few-shot chat that ends in the question, constrained by a grammar.

Measured on small models (SmolLM2 135M, Qwen2.5 0.5B): the shape of the examples decides
the shape of the graphs, so their points are mostly independent; the difficulty stands
before the needs, or nearly every point is chained to the one before; titles without
punctuation stay titles. Hard points come first, and what joins points is easy: the answer
waits for the last line, and the small model writes it in half the time. The question
stands last, so that all before it stays in the engine's prefix cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from proto.messages import Mode, Turn
from services.planner.grammar import grammar, shapes_of
from services.planner.parser import Planned, PlanParser, ShapeKind
from services.runtime.calls import ChatCall, ChatMessage
from services.runtime.context import as_text

_SYSTEM: Final = """\
You plan the answer to a question; you do not write it. Answer in this form, in the question's \
language:
- First line, one word for what the answer is: code, number, fact, letter, speech (a role, a \
poem, a message: one text in one voice), list (independent points), or graph (points, some of \
which build on others).
- Only after list or graph, 4 to 7 different points, one a line: number. short title | easy or \
hard, short, medium or long, and needs with numbers only for a point that sums up or weighs those \
points
- Last line: end"""

# Their order and words matter much to small models: see docs/adr/0020-gate.md.
_EXAMPLES: Final = (
    ("Write a SQL query that returns the ten newest orders.", "code"),
    (
        "Soll unsere Firma das Büro aufgeben?",
        """graph
1. Folgen für die Zusammenarbeit | hard medium
2. Recht und Datenschutz | hard short
3. Kosten von Miete und Technik | easy short
4. Wünsche der Mitarbeiter | easy short
5. Empfehlung | easy short needs 1,2,3
end""",
    ),
    ("A train covers 210 km in 3 hours. What is its speed?", "number"),
    (
        "How can I keep my houseplants healthy?",
        """list
1. Pests and diseases | hard medium
2. Water by the feel of the soil | easy medium
3. Right light for each plant | easy short
4. Repotting and feeding | easy short
end""",
    ),
    ("Write an invitation to a garden party.", "letter"),
    (
        "What if the Moon had never formed?",
        """graph
1. Unsteady tilt of the axis | hard medium
2. Weaker tides and coasts | easy short
3. Darker nights for animals | easy short
4. Calendars and myths | easy short
5. Odds for life on Earth | easy short needs 1,2
end""",
    ),
    ("You are a lighthouse keeper. Greet a visitor.", "speech"),
)

#: Against titles that repeat one another; small enough to leave the form alone.
_REPETITION_PENALTY: Final = 1.1
#: Room for a line where a token is hardly more than a character, and for word and end.
_TOKENS_PER_LINE: Final = 52
_TOKENS_BESIDE: Final = 16


def plan_call(
    question: str,
    *,
    mode: Mode,
    max_nodes: int,
    context: Sequence[Turn] = (),
    done_lines: Sequence[str] = (),
    constrained: bool = True,
) -> ChatCall:
    """Return the call whose reply is the plan of `question`.

    Args:
        question: as the client wrote it.
        mode: `sot` and `sgd` leave the model no choice of the first line.
        max_nodes: most nodes in the whole plan.
        context: what was said before the question.
        done_lines: lines that are already published, byte for byte. The reply then goes on
            with the next line, without the gate's word.
        constrained: whether the reply must match the grammar.
    """
    asked = f"{as_text(context)}Question: {question}" if context else question
    messages = [*_prefix(), ChatMessage("user", asked + _wish(mode))]
    if done_lines:
        messages += _so_far(done_lines, shapes_of(mode)[-1])
    left = max(max_nodes - len(done_lines), 0)
    return ChatCall(
        messages=tuple(messages),
        max_tokens=left * _TOKENS_PER_LINE + _TOKENS_BESIDE,
        grammar=grammar(mode, max_nodes, len(done_lines)) if constrained else None,
        repetition_penalty=_REPETITION_PENALTY,
    )


def example_titles() -> tuple[tuple[str, ...], ...]:
    """Return the titles of each plan that the prompt shows: an answer may copy one."""
    plans = (PlanParser().feed(f"{plan}\n") for _, plan in _EXAMPLES)
    titles = (tuple(one.node.summary for one in plan if isinstance(one, Planned)) for plan in plans)
    return tuple(found for found in titles if found)


def _prefix() -> list[ChatMessage]:
    messages = [ChatMessage("system", _SYSTEM)]
    for question, plan in _EXAMPLES:
        messages += [ChatMessage("user", question), ChatMessage("assistant", plan)]
    return messages


def _wish(mode: Mode) -> str:
    words = shapes_of(mode)
    return f"\n\n(first line: {words[0]})" if len(words) == 1 else ""


def _so_far(done_lines: Sequence[str], shape: ShapeKind) -> list[ChatMessage]:
    written = "\n".join([shape, *done_lines])
    return [
        ChatMessage("assistant", written),
        ChatMessage("user", f"Go on with line {len(done_lines) + 1}, or end."),
    ]
