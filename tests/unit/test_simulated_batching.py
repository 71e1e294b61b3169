"""Laws of the simulated engine's timing model."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.simulated_engine.batching import Batch
from bench.simulated_engine.kv import KvCache, Lease, block_keys
from bench.simulated_engine.profiles import (
    H100,
    LLAMA_8B,
    LLAMA_70B,
    NO_OP,
    PROFILES,
    Gpu,
    Profile,
    roofline,
)
from bench.simulated_engine.sequences import TGI, VLLM, Policy, Sequence

BLOCK = 4
A100_40 = Gpu("a100-40gb", 1.555e12, 312e12, 40e9)
SMALL = replace(
    NO_OP, weights_s=1.0, kv_tokens=40 * BLOCK, block_tokens=BLOCK, max_batch=4, step_tokens=16,
    max_total_tokens=120, max_input_tokens=119,
)  # fmt: skip


def asked(prompt: int = 8, reply: int = 4, *, first: int = 0, **more: int) -> Sequence:
    """A sequence; those with the same `first` share their whole prompt."""
    return Sequence(
        prompt=[first * 1000 + index for index in range(prompt)],
        reply=[first * 1000 + 500 + index for index in range(reply)],
        max_new_tokens=more.get("limit", reply),
        priority=more.get("priority", 0),
    )


def run(batch: Batch, *sequences: Sequence) -> float:
    for sequence in sequences:
        batch.submit(sequence)
    while batch.step():
        pass
    return batch.now_s


# --- the cache ---


@st.composite
def doings(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    kinds = st.sampled_from(["take", "grow", "publish", "free"])
    return draw(st.lists(st.tuples(kinds, st.integers(0, 3), st.integers(0, 6)), max_size=60))


@given(doings())
def test_blocks_are_never_lost_nor_more_than_there_are_and_prefixes_stay_closed(
    doing: list[tuple[str, int, int]],
) -> None:
    kv = KvCache(12)
    chains = [block_keys([chain, *range(6 * BLOCK)], BLOCK) for chain in range(4)]
    leases: dict[int, Lease] = {}
    for kind, chain, count in doing:
        keys, lease = chains[chain], leases.get(chain)
        if kind == "take" and lease is None:
            hits = kv.match(keys)
            if taken := kv.take(keys[:hits], count):
                leases[chain] = taken
        elif lease is not None and kind == "grow":
            kv.grow(lease, count)
        elif lease is not None and kind == "publish":
            kv.publish(lease, keys)
        elif lease is not None and kind == "free":
            kv.free(leases.pop(chain))
        assert 0 <= kv.held <= kv.blocks
        assert len(kv.cached) + sum(one.own for one in leases.values()) <= kv.blocks
        for known in chains:
            there = [key in kv.cached for key in known]
            assert there == sorted(there, reverse=True)
    for lease in leases.values():
        kv.free(lease)
    assert kv.held == 0


def test_the_block_let_go_first_goes_first() -> None:
    kv = KvCache(4)
    old, new = block_keys([1] * 8, BLOCK), block_keys([2] * 8, BLOCK)
    for keys in (old, new):
        lease = kv.take([], 2)
        assert lease
        kv.publish(lease, keys)
        kv.free(lease)
    lease = kv.take([], 1)
    assert lease
    assert (kv.match(old), kv.match(new)) == (1, 2)


# --- the batch ---


@st.composite
def loads(draw: st.DrawFn) -> tuple[Policy, Profile, list[Sequence]]:
    policy = replace(
        draw(st.sampled_from([TGI, VLLM])), requeue_tokens=draw(st.sampled_from([None, 5]))
    )
    profile = replace(
        SMALL,
        chunked=draw(st.booleans()),
        speculate=draw(st.integers(0, 3)),
        acceptance=draw(st.sampled_from([0.0, 0.5, 1.0])),
        token_s=draw(st.sampled_from([0.0, 0.1])),
    )
    one = st.builds(
        asked, st.integers(1, 40), st.integers(1, 20), first=st.integers(0, 3),
        priority=st.integers(0, 2),
    )  # fmt: skip
    return policy, profile, draw(st.lists(one, min_size=1, max_size=12))


@given(loads(), st.integers(0, 4))
def test_every_sequence_ends_with_all_its_tokens_and_no_block_stays_held(
    load: tuple[Policy, Profile, list[Sequence]], seed: int
) -> None:
    policy, profile, sequences = load
    batch = Batch(profile, policy, seed)
    for sequence in sequences:
        batch.submit(sequence)
    got = dict.fromkeys(sequences, 0)
    before_s = 0.0
    for _ in range(4000):
        step = batch.step()
        if step is None:
            break
        assert step.duration_s > 0
        assert batch.now_s == pytest.approx(before_s + step.duration_s)
        assert len(batch.running) <= profile.max_batch
        before_s = batch.now_s
        for sequence, count in step.produced:
            assert 1 <= count <= 1 + profile.speculate
            got[sequence] += count
    assert not batch.has_work
    assert batch.kv.held == 0
    for sequence in sequences:
        assert got[sequence] == sequence.generated == len(sequence.reply)
        assert sequence.admitted_s is not None
        assert sequence.first_token_s is not None
        assert sequence.ended_s is not None
        assert sequence.arrived_s <= sequence.admitted_s < sequence.first_token_s
        assert sequence.first_token_s <= sequence.ended_s


@given(loads(), st.sets(st.integers(0, 11)), st.integers(0, 6))
def test_whoever_leaves_gives_all_room_back(
    load: tuple[Policy, Profile, list[Sequence]], leaving: set[int], after: int
) -> None:
    policy, profile, sequences = load
    batch = Batch(profile, policy)
    for sequence in sequences:
        batch.submit(sequence)
    for _ in range(after):
        batch.step()
    gone = [one for index, one in enumerate(sequences) if index in leaving]
    for sequence in gone:
        batch.cancel(sequence)
    produced = [one for _ in range(4000) if (step := batch.step()) for one, _ in step.produced]
    assert not set(gone) & set(produced)
    assert batch.kv.held == 0
    assert not batch.has_work


def test_tgi_lets_in_the_first_come_first_even_if_a_later_one_would_fit() -> None:
    batch = Batch(SMALL, TGI)
    running, large, small = asked(8, 90), asked(60, 30, first=1), asked(4, 2, first=2)
    for sequence in (running, large, small):
        batch.submit(sequence)
    batch.step()
    assert batch.running == [running]
    assert batch.queue == [large, small]


def test_tgi_reserves_the_whole_reply_and_vllm_only_what_is_written() -> None:
    fitting = {}
    for name, policy in (("tgi", TGI), ("vllm", VLLM)):
        batch = Batch(SMALL, policy)
        for first in range(4):
            batch.submit(asked(4, 60, first=first))
        batch.step()
        fitting[name] = len(batch.running)
    assert fitting == {"tgi": 2, "vllm": 4}


def test_vllm_puts_the_last_one_back_when_room_runs_out_and_all_still_end() -> None:
    batch = Batch(SMALL, VLLM)
    sequences = [asked(8, 60, first=first) for first in range(4)]
    run(batch, *sequences)
    assert sequences[0].preempted == 0
    assert sum(one.preempted for one in sequences) > 0
    assert all(one.left == 0 for one in sequences)


def test_vllm_serves_the_lower_priority_number_first() -> None:
    batch = Batch(replace(SMALL, max_batch=1), VLLM)
    late, early = asked(priority=5), asked(first=1, priority=1)
    run(batch, late, early)
    assert (early.ended_s or 0) < (late.ended_s or 0)


def test_siblings_share_a_prefix_at_once_with_vllm_and_after_the_first_has_ended_with_tgi() -> None:
    hits = {}
    for name, policy in (("tgi", TGI), ("vllm", VLLM)):
        batch = Batch(replace(SMALL, step_tokens=64), policy)
        first = asked(17, 8)
        batch.submit(first)
        batch.step()
        during, after = asked(17, 2), asked(17, 2)
        run(batch, during)
        run(batch, after)
        hits[name] = (first.cached_tokens, during.cached_tokens, after.cached_tokens)
    assert hits == {"tgi": (0, 0, 16), "vllm": (0, 16, 16)}


def test_a_prompt_that_is_cached_as_a_whole_still_computes_its_last_token() -> None:
    batch = Batch(SMALL, VLLM)
    run(batch, asked(16, 2))
    again = asked(16, 2)
    run(batch, again)
    assert again.cached_tokens == 12


def test_without_a_cache_nothing_is_shared() -> None:
    batch = Batch(SMALL, replace(VLLM, caches=False))
    run(batch, asked(16, 2), asked(16, 2))
    assert batch.hit_tokens == 0


def test_tgi_queues_a_long_reply_again_behind_the_others() -> None:
    batch = Batch(replace(SMALL, max_batch=1), replace(TGI, requeue_tokens=4))
    long, short = asked(8, 10), asked(8, 2, first=1)
    run(batch, long, short)
    assert (short.ended_s or 0) < (long.ended_s or 0)
    assert long.generated == 10


def test_tgi_ends_a_long_reply_early_where_the_next_turn_would_not_fit() -> None:
    batch = Batch(replace(SMALL, max_total_tokens=20), replace(TGI, requeue_tokens=8))
    sequence = asked(10, 100, limit=100)
    run(batch, sequence)
    assert sequence.cut
    assert sequence.generated == 8


def test_what_can_never_have_room_is_refused() -> None:
    with pytest.raises(ValueError, match="no room"):
        Batch(SMALL, TGI).submit(Sequence(prompt=[1] * 200, reply=[1], max_new_tokens=1))


@given(st.integers(1, 200), st.integers(0, 100_000), st.sampled_from(sorted(PROFILES)))
def test_a_step_never_gets_shorter_by_more_work(tokens: int, context: int, name: str) -> None:
    profile = PROFILES[name]
    assert profile.step_s(tokens, context) <= profile.step_s(tokens + 1, context)
    assert profile.step_s(tokens, context) <= profile.step_s(tokens, context + 1)


def test_decoding_together_costs_less_than_one_after_another_until_computing_binds() -> None:
    profile = PROFILES["llama-70b-4xa100"]
    alone = run(Batch(profile, TGI), asked(50, 100))
    together = run(Batch(profile, TGI), *(asked(50, 100, first=first) for first in range(32)))
    assert alone < together < 4 * alone


def test_prompts_in_chunks_let_the_others_go_on() -> None:
    waits = {}
    for chunked in (True, False):
        profile = replace(
            PROFILES["llama-70b-4xa100"], chunked=chunked, step_tokens=512 if chunked else 8192
        )
        batch = Batch(profile, VLLM)
        batch.submit(asked(100, 200))
        batch.step()
        batch.submit(asked(6000, 2, first=1))
        steps = [step.duration_s for _ in range(20) if (step := batch.step())]
        waits[chunked] = max(steps)
    assert waits[True] < waits[False] / 4


def test_guessed_tokens_that_are_right_come_several_a_step() -> None:
    plain = Batch(SMALL, TGI)
    guessing = Batch(replace(SMALL, speculate=3, acceptance=1.0), TGI)
    assert run(guessing, asked(8, 41)) < run(plain, asked(8, 41)) / 3


#: Time between tokens of one stream, measured: docs/simulated-engine.md has the sources.
PUBLISHED_S = {(A100_40, 1088): 1 / 75, (H100, 200): 0.00648}


@pytest.mark.parametrize(("gpu", "context"), PUBLISHED_S)
def test_decoding_alone_takes_what_others_have_measured(gpu: Gpu, context: int) -> None:
    profile = roofline("checked", LLAMA_8B, gpu, 1)
    assert profile.step_s(1, context) == pytest.approx(PUBLISHED_S[gpu, context], rel=0.05)


def test_a_model_that_does_not_fit_has_no_profile() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        roofline("too large", LLAMA_70B, H100, 1)
