"""What runs in a batch, by which policy, and what a step gives; pure."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Final

from bench.simulated_engine.kv import Lease

#: TGI decodes so many tokens, then queues the sequence again with what it has written.
REQUEUE_TOKENS: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What engine families do differently with the same cards.

    Args:
        reserves: room for the whole reply is taken at admission (TGI), so that a sequence
            which runs is never put back; otherwise it grows by blocks, and the last one goes
            back into the queue when there is no room (vLLM).
        shares_when_done: others may share a prompt's blocks when the sequence has ended (TGI's
            radix trie); otherwise as soon as they are computed, of the reply too (vLLM).
        requeue_tokens: most tokens of one turn in the batch; none if None.
        caches: whether there is a prefix cache at all.
        by_priority: whether the queue is ordered by priority, lowest first; else FIFO.
    """

    reserves: bool
    shares_when_done: bool
    requeue_tokens: int | None = None
    caches: bool = True
    by_priority: bool = False


TGI: Final = Policy(reserves=True, shares_when_done=True, requeue_tokens=REQUEUE_TOKENS)
VLLM: Final = Policy(reserves=False, shares_when_done=False, by_priority=True)


@dataclass(slots=True, eq=False, kw_only=True)
class Sequence:
    """One prompt and its reply, which is known beforehand to its last token.

    Args:
        prompt: its tokens.
        reply: the tokens that it is going to get; at least one.
        max_new_tokens: what the client allows, at least `len(reply)`; by it room is reserved.
        priority: the lower the earlier, where the policy minds it.

    Attributes:
        generated: tokens of the reply so far.
        cached_tokens: tokens of the prompt that came from the cache at its admission.
        arrived_s, admitted_s, first_token_s, ended_s: virtual times.
        cut: it ended before its reply did, because the context was full.
        preempted: how often it was put back.
    """

    prompt: Seq[int]
    reply: Seq[int]
    max_new_tokens: int
    priority: int = 0
    generated: int = 0
    cached_tokens: int = 0
    arrived_s: float = 0.0
    admitted_s: float | None = None
    first_token_s: float | None = None
    ended_s: float | None = None
    cut: bool = False
    preempted: int = 0
    number: int = 0
    keys: list[int] = field(default_factory=list)
    lease: Lease | None = None
    #: Tokens whose keys and values are computed, and those that count as prompt in this turn.
    computed: int = 0
    to_prefill: int = 0
    turn_began_at: int = 0
    gone: bool = False

    @property
    def context_tokens(self) -> int:
        """Tokens of the prompt and of what is written so far."""
        return len(self.prompt) + self.generated

    def tokens(self) -> list[int]:
        """Return these tokens; costly, for keys of new blocks only."""
        return [*self.prompt, *self.reply[: self.generated]]

    @property
    def prefilling(self) -> bool:
        """Whether its prompt is not yet computed."""
        return self.computed < self.to_prefill

    @property
    def left(self) -> int:
        """Tokens that it still has to get."""
        return len(self.reply) - self.generated


@dataclass(frozen=True, slots=True)
class Step:
    """What came of a step.

    Args:
        duration_s: how long it lasted.
        produced: sequences with the number of their new tokens; the last ones are complete
            when `ended_s` is set.
        prefilled: prompt tokens computed.
        batch: sequences that took part.
    """

    duration_s: float
    produced: Seq[tuple[Sequence, int]]
    prefilled: int
    batch: int
