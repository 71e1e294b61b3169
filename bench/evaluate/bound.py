"""What a request would take on idle engines if nothing but engines took time; pure.

The critical path: the plan until a node's line is complete, then the chain of nodes of which each
waits for the one before. No run can be faster: each call decodes alone in its batch, and prefills
only what its pool cannot have in a cache. Rules, examples and instructions are never charged; the
question and the plan's lines once a pool, and of the plan only what is written by then; a text that
is built on once a pool, unless that pool wrote it right behind the question and the plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from bench.evaluate.methods import Way
from bench.evaluate.replay import Replay
from bench.simulated_engine.profiles import Profile
from bench.simulated_engine.tokens import pieces
from proto.messages import NodeSpec
from proto.names import DIRECT_NODE, Pool


def bound_s(replay: Replay, pair: Mapping[Pool, Profile], way: Way) -> float:
    """Return the least time from the request to its answer, in seconds of the profiles."""
    if not replay.plan:
        return _direct_s(replay, pair)
    lines = _line_ends_s(replay, pair[way.planner])
    if replay.is_direct:
        return lines[-1] + _direct_s(replay, pair)
    ends: dict[int, float] = {}
    caches = {pool: _Cache() for pool in pair}
    left = _calls(replay, lines, way)
    while ready := [call for call in left if ends.keys() >= set(call.needs)]:
        # In the order in which they start: who comes first to a pool fills its cache.
        call = min(ready, key=lambda call: call.starts_s(ends))
        left.remove(call)
        new = caches[call.pool].take(call)
        took_s = call_s(pair[call.pool], new, call.tokens, call.prompt_tokens - new)
        ends[call.id] = call.starts_s(ends) + took_s
    return max([lines[-1], *ends.values()])


def call_s(profile: Profile, new: int, tokens: int, cached: int = 0) -> float:
    """Return the time of one call alone.

    Args:
        profile: of the engine.
        new: tokens of the prompt that no cache has.
        tokens: of the reply.
        cached: tokens of the prompt that a cache has.
    """
    prompt = cached + new
    decoding = sum(profile.step_s(1, prompt + done) for done in range(1, tokens))
    return profile.step_s(max(1, new), cached) + decoding


@dataclass(frozen=True, slots=True)
class _Call:
    """A node and its call.

    Args:
        id: of the node.
        pool: that writes it.
        ready_s: when it may start if it needs nothing.
        needs: the nodes that it waits for.
        tokens: of its text.
        shared: tokens of the question and of the plan that it sees.
        texts: tokens of the texts that it builds on, by node.
    """

    id: int
    pool: Pool
    ready_s: float
    needs: tuple[int, ...]
    tokens: int
    shared: int
    texts: Mapping[int, int]

    @property
    def prompt_tokens(self) -> int:
        """Of question, plan and texts."""
        return self.shared + sum(self.texts.values())

    def starts_s(self, ends: Mapping[int, float]) -> float:
        """Return when it starts, where what it needs ends at `ends`."""
        return max([self.ready_s, *(ends[need] for need in self.needs)])


@dataclass(slots=True)
class _Cache:
    """What a pool has computed of a request.

    Attributes:
        shared: tokens of the question and the plan.
        paths: the nodes whose texts stand behind these, in the order of the prompt.
    """

    shared: int = 0
    paths: set[tuple[int, ...]] = field(default_factory=set)

    def take(self, call: _Call) -> int:
        """Return how many tokens of the prompt of `call` are new; from now on they are not."""
        behind = [call.needs[:end] for end in range(1, len(call.needs) + 1)]
        new = max(0, call.shared - self.shared)
        new += sum(call.texts[path[-1]] for path in behind if path not in self.paths)
        self.shared = max(self.shared, call.shared)
        self.paths |= {*behind, (*call.needs, call.id)}
        return new


def _calls(replay: Replay, lines_s: Sequence[float], way: Way) -> list[_Call]:
    """Return the nodes that have a text; `lines_s` is when each part of the plan is complete."""
    lengths = {one.node: one.tokens for one in replay.nodes}
    placed = [(place, one) for place, one in replay.placed() if one.node.id in lengths]
    told = list(accumulate(_told_tokens(one.line) for _, one in placed))
    found: list[_Call] = []
    for (place, one), so_far in zip(placed, told, strict=True):
        needs = tuple(need for need in one.node.needs if way.needs and need in lengths)
        found.append(
            _Call(
                id=one.node.id,
                pool=_pool(one.node, way),
                ready_s=lines_s[place] if way.pipelined else lines_s[-1],
                needs=needs,
                tokens=lengths[one.node.id],
                shared=replay.question_tokens + (so_far if way.pipelined else told[-1]),
                texts={need: lengths[need] for need in needs},
            )
        )
    return found


def _told_tokens(line: str) -> int:
    """Return the tokens of what nodes are told of a line: its number and its title."""
    return len(pieces(line.partition("|")[0].strip()))


def _direct_s(replay: Replay, pair: Mapping[Pool, Profile]) -> float:
    tokens = next((one.tokens for one in replay.nodes if one.node == DIRECT_NODE), 0)
    return call_s(pair[Pool.LARGE], replay.question_tokens, tokens)


def _line_ends_s(replay: Replay, profile: Profile) -> list[float]:
    """Return when each part of the plan is complete: the gate's word, then each line."""
    ends = accumulate(part.tokens for part in replay.plan)
    return [call_s(profile, replay.question_tokens, tokens) for tokens in ends]


def _pool(node: NodeSpec, way: Way) -> Pool:
    return Pool.SMALL if way.adaptive and node.difficulty == "easy" else Pool.LARGE
