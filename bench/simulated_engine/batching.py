"""An engine's queue and batch, step by step, in virtual time; pure.

`Batch` decides what each step computes and how long it lasts. Who drives it decides what time
is: `pace` lets it pass, a discrete-event simulation jumps.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence as Seq
from random import Random

from bench.simulated_engine.kv import KvCache, block_keys
from bench.simulated_engine.profiles import Profile
from bench.simulated_engine.sequences import Policy, Sequence, Step


class Batch:
    """The queue, the batch and the cache of one engine.

    Args:
        profile: how long things take, and how much room there is.
        policy: what the engine family does.
        seed: of the draws by which guessed tokens are accepted.

    Attributes:
        now_s: virtual time: the end of the last step.
        queue: who waits, the next one first.
        running: who has room, in the order of admission.
    """

    def __init__(self, profile: Profile, policy: Policy, seed: int = 0) -> None:
        self.profile = profile
        self.policy = policy
        self.now_s = 0.0
        self.queue: list[Sequence] = []
        self.running: list[Sequence] = []
        self.kv = KvCache(profile.kv_tokens // profile.block_tokens)
        self.queried_tokens = 0
        self.hit_tokens = 0
        self._random = Random(seed)
        self._count = 0

    @property
    def has_work(self) -> bool:
        """Whether there is anything to compute."""
        return bool(self.queue or self.running)

    def submit(self, sequence: Sequence, at_s: float | None = None) -> None:
        """Put `sequence` at the end of the queue.

        Raises:
            ValueError: there could never be room for it.
        """
        most = len(sequence.prompt) + sequence.max_new_tokens
        # A reply that is cut by the context's end needs no more than the context.
        most = max(min(most, self.profile.max_total_tokens), len(sequence.prompt) + 1)
        most += self.profile.speculate
        if most > self.kv.blocks * self.profile.block_tokens:
            raise ValueError(f"no room for {most} tokens")
        self._count += 1
        sequence.number = self._count
        sequence.arrived_s = self.now_s if at_s is None else at_s
        self._enqueue(sequence)

    def cancel(self, sequence: Sequence) -> None:
        """Take `sequence` out before the next step; one that waits stays until it is popped."""
        sequence.gone = True

    def step(self) -> Step | None:
        """Compute one step and let its time pass; None if there is nothing to compute."""
        self._drop_gone()
        self._admit()
        if not self.running:
            return None
        prefills = self._prefills()
        if self.profile.chunked or not prefills:
            decoding = self._decoding()
            # Room for a decoded token may have put one of the prefills back.
            prefills = [(one, count) for one, count in prefills if one.lease]
        else:
            decoding = []
        return self._compute(decoding, prefills)

    # --- queue ---

    def _enqueue(self, sequence: Sequence, *, first: bool = False) -> None:
        if self.policy.by_priority:
            insort(self.queue, sequence, key=lambda one: (one.priority, one.number))
        elif first:
            self.queue.insert(0, sequence)
        else:
            self.queue.append(sequence)
        sequence.to_prefill = sequence.context_tokens
        sequence.turn_began_at = sequence.generated

    def _drop_gone(self) -> None:
        for sequence in [one for one in self.running if one.gone]:
            self._leave(sequence)
        while self.queue and self.queue[0].gone:
            self.queue.pop(0)

    def _admit(self) -> None:
        """Let in who has room, as long as this step has tokens left for prompts."""
        budget = self._prompt_tokens() - sum(
            max(one.to_prefill - one.computed, 0) for one in self.running
        )
        while self.queue and len(self.running) < self.profile.max_batch:
            sequence = self.queue[0]
            if sequence.gone:
                self.queue.pop(0)
                continue
            alone = not self.running
            if (budget <= 0 and not alone) or not self._fits(sequence):
                break
            self.queue.pop(0)
            self.running.append(sequence)
            budget -= sequence.to_prefill - sequence.computed

    def _prompt_tokens(self) -> int:
        """Return how many tokens of prompts this step may compute."""
        if not self.profile.chunked:
            return self.profile.step_tokens
        decoding = sum(not one.prefilling for one in self.running)
        return self.profile.step_tokens - decoding * (1 + self.profile.speculate)

    def _fits(self, sequence: Sequence) -> bool:
        """Take room for `sequence` if there is."""
        size = self.profile.block_tokens
        sequence.keys = block_keys(sequence.tokens(), size, sequence.keys)
        # The last token of a prompt is always computed: the next one comes of it.
        reusable = sequence.keys[: (sequence.context_tokens - 1) // size]
        hits = self.kv.match(reusable) if self.policy.caches else 0
        blocks = -(-self._room(sequence) // size)
        lease = self.kv.take(reusable[:hits], max(blocks - hits, 0))
        if lease is None:
            return False
        sequence.lease, sequence.computed = lease, hits * size
        self._count_hits(sequence, hits * size)
        return True

    def _room(self, sequence: Sequence) -> int:
        if not self.policy.reserves:
            return sequence.context_tokens + 1
        turn = sequence.max_new_tokens - sequence.generated
        if self.policy.requeue_tokens is not None:
            turn = min(turn, self.policy.requeue_tokens)
        return sequence.context_tokens + turn + max(self.profile.speculate - 1, 0)

    def _count_hits(self, sequence: Sequence, hit_tokens: int) -> None:
        self.queried_tokens += sequence.context_tokens
        self.hit_tokens += hit_tokens
        if sequence.admitted_s is None:
            sequence.admitted_s = max(self.now_s, sequence.arrived_s)
            sequence.cached_tokens = hit_tokens

    def _leave(self, sequence: Sequence) -> None:
        """Take `sequence` out of the batch, its blocks with it."""
        self.running.remove(sequence)
        if sequence.lease is None:
            return
        if self.policy.caches and self.policy.shares_when_done:
            computed = min(sequence.computed, sequence.to_prefill)
            whole = sequence.keys[: computed // self.profile.block_tokens]
            self.kv.publish(sequence.lease, whole)
        self.kv.free(sequence.lease)
        sequence.lease = None

    # --- step ---

    def _prefills(self) -> list[tuple[Sequence, int]]:
        left = self._prompt_tokens()
        chosen: list[tuple[Sequence, int]] = []
        for sequence in self.running:
            if not sequence.prefilling:
                continue
            wanted = sequence.to_prefill - sequence.computed
            if not self.profile.chunked:
                if chosen and wanted > left:
                    break
            elif left <= 0:
                break
            else:
                wanted = min(wanted, left)
            chosen.append((sequence, wanted))
            left -= wanted
        return chosen

    def _decoding(self) -> list[Sequence]:
        """Return who gets tokens by decoding, each with room for the most that it may get."""
        # Who has reserved has room.
        for sequence in () if self.policy.reserves else list(self.running):
            if not sequence.prefilling and sequence.lease is not None:
                self._make_room(sequence)
        return [one for one in self.running if not one.prefilling]

    def _make_room(self, sequence: Sequence) -> None:
        assert sequence.lease is not None
        needed = sequence.context_tokens + min(1 + self.profile.speculate, sequence.left)
        missing = -(-needed // self.profile.block_tokens) - sequence.lease.blocks
        while missing > 0 and not self.kv.grow(sequence.lease, missing):
            last = self._last_of_all()
            self._put_back(last)
            if last is sequence:
                return

    def _last_of_all(self) -> Sequence:
        return max(self.running, key=lambda one: (one.priority, one.number))

    def _put_back(self, sequence: Sequence) -> None:
        self._leave(sequence)
        sequence.preempted += 1
        sequence.computed = 0
        self._enqueue(sequence, first=True)

    def _compute(self, decoding: Seq[Sequence], prefills: Seq[tuple[Sequence, int]]) -> Step:
        prefilled = sum(count for _, count in prefills)
        tokens = prefilled + len(decoding) * (1 + self.profile.speculate)
        context = sum(len(one.prompt) + one.generated for one in decoding) + sum(
            one.computed for one, _ in prefills
        )
        duration_s = self.profile.step_s(tokens, context)
        self.now_s += duration_s
        produced = [(one, self._accepted(one)) for one in decoding]
        for sequence, count in prefills:
            sequence.computed += count
            self._share(sequence)
            if not sequence.prefilling:
                produced.append((sequence, 1))
        for sequence, count in produced:
            self._advance(sequence, count)
        return Step(duration_s, produced, prefilled, len(decoding) + len(prefills))

    def _accepted(self, sequence: Sequence) -> int:
        count = 1
        while count <= self.profile.speculate and self._random.random() < self.profile.acceptance:
            count += 1
        return min(count, sequence.left)

    def _advance(self, sequence: Sequence, count: int) -> None:
        sequence.generated += count
        # The newest token's keys and values are computed in the next step.
        sequence.computed = sequence.context_tokens - 1
        self._share(sequence)
        if sequence.first_token_s is None:
            sequence.first_token_s = self.now_s
        if not sequence.left:
            self._end(sequence)
        elif self._turn_is_over(sequence):
            self._requeue(sequence)

    def _turn_is_over(self, sequence: Sequence) -> bool:
        most = self.policy.requeue_tokens
        return most is not None and sequence.generated - sequence.turn_began_at >= most

    def _requeue(self, sequence: Sequence) -> None:
        most = self.policy.requeue_tokens or 0
        turn = min(sequence.max_new_tokens - sequence.generated, most)
        if sequence.context_tokens + turn > self.profile.max_total_tokens:
            sequence.cut = True
            self._end(sequence)
            return
        self._leave(sequence)
        sequence.computed = 0
        self._enqueue(sequence)

    def _end(self, sequence: Sequence) -> None:
        sequence.ended_s = self.now_s
        self._leave(sequence)

    def _share(self, sequence: Sequence) -> None:
        """Let others share what is computed, where the policy does so at once."""
        if not self.policy.caches or self.policy.shares_when_done or sequence.lease is None:
            return
        whole = sequence.computed // self.profile.block_tokens
        if whole > len(sequence.lease.shared):
            sequence.keys = block_keys(sequence.tokens(), self.profile.block_tokens, sequence.keys)
            self.kv.publish(sequence.lease, sequence.keys[:whole])
