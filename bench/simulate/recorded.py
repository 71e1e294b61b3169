"""Questions of a simulation from the recordings of the evaluation; pure.

A recording (`bench/evaluate/recorded/*.jsonl`) has a replay a line: a question as one method
answered it, with its plan and the lengths of its texts. What the gate says is that of `auto`; a
question that it decomposes has the plan and the lengths of a method that was forced to decompose
it, where those were written, else those that the plan asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import ValidationError

from bench.evaluate.methods import BASELINE
from bench.evaluate.replay import Replay
from bench.simulate.work import PlannedNode, Question, Shape

GATE = "auto"


def read_recording(path: Path, method: str = "sgd") -> list[Question]:
    """Return the questions of a recording.

    Args:
        path: its file.
        method: whose plans and lengths decomposed questions have.

    Raises:
        ValueError: a line is not a replay.
        OSError: the file cannot be read.
    """
    replays = []
    for number, line in enumerate(path.read_text("utf-8").split("\n"), 1):
        if not line:
            continue
        try:
            replays.append(Replay.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"{path}, line {number}: {where}: {first['msg']}") from None
    return questions(replays, method)


def questions(replays: Iterable[Replay], method: str = "sgd") -> list[Question]:
    """Return those of which a direct answer was recorded, and what the gate said."""
    found: dict[str, dict[str, Replay]] = {}
    for one in replays:
        found.setdefault(one.question, {})[one.method] = one
    made = (_question(name, of, method) for name, of in sorted(found.items()))
    return [one for one in made if one]


def _question(name: str, of: Mapping[str, Replay], method: str) -> Question | None:
    direct, gate = of.get(BASELINE), of.get(GATE)
    if direct is None or gate is None:
        return None
    tokens = _tokens(direct)[0]
    if gate.is_direct:
        return Question(name, "direct", (), tokens)
    forced = of.get(method)
    nodes = _nodes(forced if forced and not forced.is_direct else gate)
    shape: Shape = "graph" if any(node.needs for node in nodes) else "list"
    return Question(name, shape, nodes, tokens)


def _nodes(replay: Replay) -> tuple[PlannedNode, ...]:
    """Return the plan's nodes; a line that was left out counts to the one after it."""
    lengths = _tokens(replay)
    found, after = [], 1  # the gate's word is no line
    for place, node in ((place, planned.node) for place, planned in replay.placed()):
        if node.id in lengths:
            tokens = sum(part.tokens for part in replay.plan[after : place + 1])
            easy = node.difficulty == "easy"
            found.append(PlannedNode(node.id, node.needs, easy, tokens, lengths[node.id]))
            after = place + 1
    return tuple(found)


def _tokens(replay: Replay) -> dict[int, int]:
    """Return the tokens that an engine generates for each node: the one that ends it counts."""
    return {one.node: one.tokens + (one.finish == "stop") for one in replay.nodes}
