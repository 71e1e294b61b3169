"""Plans and lengths of real runs, and the replies by which simulated engines repeat them; pure.

What is committed (`packing`) holds the ids and categories of the questions, the plans and the
numbers of tokens, no question and no answer. A replayed question is a mark of its own and filler of
the same length.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from statistics import median
from typing import Final, Literal

from bench.evaluate.records import Frozen
from bench.simulated_engine.tokens import pieces
from proto.errors import PlanRejected
from proto.messages import FinishReason
from proto.names import DIRECT_NODE
from services.planner.parser import Planned
from services.planner.prompts import plan_call
from services.planner.reading import PlanReader

#: How long a node is of which no length was recorded, if there is none to go by.
NODE_TOKENS: Final = 120

_FORCED: Final = {"sgd": "graph\n", "sot": "list\n"}
_IDS: Final = re.compile(r"\d|,")


class Part(Frozen):
    """A piece of the plan, with the tokens that the model's own tokeniser makes of it."""

    text: str
    tokens: int


class Length(Frozen):
    """The tokens of a node's text, without the one that ends it."""

    node: int
    tokens: int
    finish: FinishReason


class Replay(Frozen):
    """A question as it was answered by a method.

    Args:
        question: its id in the file.
        category: of the question.
        question_tokens: its length.
        method: name of the method.
        plan: as the model wrote it, or the lines that were published with the tokens of all that it
            wrote; empty if it was not asked for one.
        nodes: of the answer, in plan order.
        lengths: whether the nodes' lengths are those that were written, or what the plan asked for.
    """

    question: str
    category: str
    question_tokens: int
    method: str
    plan: tuple[Part, ...] = ()
    nodes: tuple[Length, ...] = ()
    lengths: Literal["recorded", "planned"] = "recorded"

    @property
    def mark(self) -> str:
        """What tells its calls from those of all others."""
        return f"[{self.question} {self.method}]"

    @property
    def is_direct(self) -> bool:
        """Whether the answer was direct."""
        return tuple(one.node for one in self.nodes) == (DIRECT_NODE,)

    @property
    def lines(self) -> tuple[str, ...]:
        """The plan's node lines."""
        return tuple(part.text.rstrip("\n") for part in self.plan if "|" in part.text)

    def planned(self) -> list[Planned]:
        """Return the plan's nodes, as the planner publishes them."""
        return [planned for _, planned in self.placed()]

    def placed(self) -> list[tuple[int, Planned]]:
        """Return them, each with the place in `plan` of the part that completes its line.

        A point that repeats an earlier one is no node, but its line was written.
        """
        reader, found = PlanReader(), []
        with suppress(PlanRejected):  # what stands before a line that is none was published
            for place, part in enumerate(self.plan):
                items = reader.feed(part.text)
                found += [(place, item) for item in items if isinstance(item, Planned)]
        return found


# --- as a method -----------------------------------------------------------------------


def as_method(replay: Replay, name: str, mode: str) -> Replay:
    """Return `replay` as a method asks for it of which nothing was recorded.

    The same plan, under the word that the mode forces; for `sot` without needs.
    """
    plan = replay.plan
    if plan and not replay.is_direct and mode in _FORCED:
        lines = [_without_needs(part) if mode == "sot" else part for part in plan[1:]]
        plan = (Part(text=_FORCED[mode], tokens=plan[0].tokens), *lines)
    return replay.model_copy(update={"method": name, "plan": plan})


def _without_needs(part: Part) -> Part:
    """Return a line without its needs, and without their tokens: a word, a space, `1,2,3`."""
    kept, needs, ids = part.text.rstrip("\n").partition(" needs ")
    if not needs:
        return part
    return Part(text=f"{kept}\n", tokens=max(1, part.tokens - 2 - len(_IDS.findall(ids))))


# --- as replies -----------------------------------------------------------------------


def question_of(replay: Replay, nonce: str) -> str:
    """Return the question to ask: `nonce` first, so that no cache knows it from another time."""
    head = f"{nonce} {replay.mark}"
    return head + " light" * max(0, replay.question_tokens - len(pieces(head)))


def replies(replay: Replay, direct_tokens: int | None = None) -> list[dict[str, object]]:
    """Return the lines of `--replies` that answer all calls which `replay` leads to.

    Args:
        replay: what is repeated.
        direct_tokens: length of the direct answer, where it is not `replay`'s own.
    """
    mark, lengths = replay.mark, {one.node: one.tokens for one in replay.nodes}
    usual = round(median(lengths.values())) if lengths else NODE_TOKENS
    known = {**dict.fromkeys((one.node.id for one in replay.planned()), usual), **lengths}
    known.setdefault(DIRECT_NODE, direct_tokens or usual)
    lines: list[dict[str, object]] = [
        {"within": mark, "match": node_mark(node), "reply": prose(tokens), "tokens": tokens}
        for node, tokens in known.items()
        if node != DIRECT_NODE
    ]
    if replay.plan:
        # Where the large model looks over the small one's draft it finds nothing to amend.
        lines.append({"within": mark, "match": "\n\nOutline:\n", "reply": "ok", "tokens": 1})
        lines.append(
            {
                "within": plan_mark(),
                "match": mark,
                "reply": [part.text for part in replay.plan],
                "tokens": [part.tokens for part in replay.plan],
            }
        )
    direct = known[DIRECT_NODE]
    return [*lines, {"match": mark, "reply": prose(direct), "tokens": direct}]


def node_mark(node: int) -> str:
    """Return what stands in the last message of the call for `node`, and of no other node's."""
    return f"[Write part {node}:"


def plan_mark() -> str:
    """Return what stands in planning calls only."""
    return plan_call("?", mode="auto", max_nodes=1).messages[0].content[:40]


def prose(tokens: int) -> str:
    """Return a text of so many tokens."""
    return "Light" + " light" * (tokens - 2) + ("." if tokens > 1 else "")


def as_lines(lines: Iterable[Mapping[str, object]]) -> str:
    """Return a file of replies."""
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def direct_lengths(all_: Sequence[Replay]) -> dict[str, int]:
    """Return the length of each question's direct answer."""
    return {one.question: one.nodes[0].tokens for one in all_ if one.is_direct and one.nodes}
