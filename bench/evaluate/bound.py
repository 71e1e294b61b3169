"""What a request would take on idle engines if nothing but engines took time; pure.

The critical path: the plan until a node's line is complete, then the chain of nodes of which each
waits for the one before. Each call prefills what no earlier call of the same prefix has computed,
and decodes alone in its batch: no run can be faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

from bench.evaluate.methods import Way
from bench.evaluate.replay import Replay
from bench.simulated_engine.profiles import Profile
from proto.messages import NodeSpec
from proto.names import DIRECT_NODE, Pool


def bound_s(replay: Replay, pair: Mapping[Pool, Profile], way: Way) -> float:
    """Return the least time from the request to its answer, in seconds of the profiles."""
    if not replay.plan:
        return _direct_s(replay, pair)
    lines = _line_ends_s(replay, pair[way.planner])
    plan_s = lines[-1]
    if replay.is_direct:
        return plan_s + _direct_s(replay, pair)
    lengths = {one.node: one.tokens for one in replay.nodes}
    ends: dict[int, float] = {}
    for place, planned in enumerate(replay.planned(), start=1):
        node = planned.node
        if node.id not in lengths:
            continue
        needs = [need for need in node.needs if way.needs and need in ends]
        start = max([lines[place] if way.pipelined else plan_s, *(ends[need] for need in needs)])
        known = sum(lengths[need] for need in needs) + sum(p.tokens for p in replay.plan)
        profile = pair[_pool(node, way)]
        prompt = replay.question_tokens + known
        ends[node.id] = start + call_s(profile, prompt, lengths[node.id])
    return max(ends.values(), default=plan_s)


def call_s(profile: Profile, prompt: int, tokens: int) -> float:
    """Return the time of one call alone: `prompt` tokens that no cache has, then the reply's."""
    decoding = sum(profile.step_s(1, prompt + done) for done in range(1, tokens))
    return profile.step_s(prompt, 0) + decoding


def _direct_s(replay: Replay, pair: Mapping[Pool, Profile]) -> float:
    tokens = next((one.tokens for one in replay.nodes if one.node == DIRECT_NODE), 0)
    return call_s(pair[Pool.LARGE], replay.question_tokens, tokens)


def _line_ends_s(replay: Replay, profile: Profile) -> list[float]:
    """Return when the gate's word, and then each line, is complete."""
    ends = accumulate(part.tokens for part in replay.plan)
    return [call_s(profile, replay.question_tokens, tokens) for tokens in ends]


def _pool(node: NodeSpec, way: Way) -> Pool:
    return Pool.SMALL if way.adaptive and node.difficulty == "easy" else Pool.LARGE
