"""How long a step of an engine takes, by roofline arithmetic; and the profiles to choose from.

A step reads all weights once and the keys and values of every running sequence, and computes
each of its tokens; it lasts as long as the slower of the two, and a fixed overhead. The sources
of all numbers are in docs/simulated-engine.md, which also says how far they can be trusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Gpu:
    """A card, by its data sheet: bytes/s of its memory, dense bf16 FLOP/s, bytes."""

    name: str
    bandwidth: float
    flops: float
    memory: float


@dataclass(frozen=True, slots=True)
class Model:
    """A dense transformer: parameters, layers, bytes of keys and values a token (bf16)."""

    name: str
    parameters: float
    layers: int
    kv_bytes_a_token: int
    context_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The timing and the room of one engine.

    Args:
        name: to choose it by.
        model: whose name the engine tells.
        weights_s: reading all weights once: the floor of a step.
        kv_token_s: reading keys and values of one token in context.
        token_s: computing one token, of a prompt or of a reply.
        overhead_s: of each step, whatever it does: launches, sampling, all-reduces.
        kv_tokens: room for keys and values.
        max_batch: sequences that run at once.
        step_tokens: tokens that one step computes at most, prompts in chunks.
        chunked: whether prompts are prefilled in chunks beside the decoding; if not, a step
            prefills whole prompts while all decoding stands still.
        speculate: tokens guessed a step.
        acceptance: chance that a guessed token is right, if those before it were.
        max_input_tokens: of a prompt.
        max_total_tokens: of a prompt and its reply.
        block_tokens: tokens of a block of keys and values.
    """

    name: str
    model: str
    weights_s: float
    kv_token_s: float
    token_s: float
    overhead_s: float
    kv_tokens: int
    max_batch: int = 256
    step_tokens: int = 2048
    chunked: bool = True
    speculate: int = 0
    acceptance: float = 0.0
    max_input_tokens: int = 32_767
    max_total_tokens: int = 32_768
    block_tokens: int = 16

    def step_s(self, tokens: int, context_tokens: int) -> float:
        """Return how long a step lasts.

        Args:
            tokens: that it computes, guessed ones included.
            context_tokens: whose keys and values it reads.
        """
        memory_s = self.weights_s + context_tokens * self.kv_token_s
        return self.overhead_s + max(memory_s, tokens * self.token_s)


#: Share of the data sheet's bandwidth, and of its FLOP/s, that engines reach.
BANDWIDTH_SHARE: Final = 0.85
FLOPS_SHARE: Final = 0.6
#: Share of the cards' memory that an engine takes, and what activations and graphs need of it.
MEMORY_SHARE: Final = 0.9
_WORKSPACE_BYTES: Final = 3e9
_BYTES_A_PARAMETER: Final = 2
#: Scheduler, launches and sampling of a step; one all-reduce of a small message over NVLink.
_STEP_OVERHEAD_S: Final = 1e-3
_ALL_REDUCE_S: Final = 12e-6

A100: Final = Gpu("a100", 2.039e12, 312e12, 80e9)
H100: Final = Gpu("h100", 3.35e12, 989e12, 80e9)
LLAMA_8B: Final = Model("meta-llama/Llama-3.1-8B-Instruct", 8.03e9, 32, 131_072, 32_768)
LLAMA_70B: Final = Model("meta-llama/Llama-3.1-70B-Instruct", 70.6e9, 80, 327_680, 32_768)


def roofline(name: str, model: Model, gpu: Gpu, cards: int) -> Profile:
    """Return the profile of `model` in bf16, split over `cards` (tensor parallelism).

    Raises:
        ValueError: the weights leave no room.
    """
    bandwidth = gpu.bandwidth * cards * BANDWIDTH_SHARE
    weights = model.parameters * _BYTES_A_PARAMETER
    room = cards * (gpu.memory * MEMORY_SHARE - _WORKSPACE_BYTES) - weights
    all_reduces_s = 2 * model.layers * _ALL_REDUCE_S if cards > 1 else 0.0
    if room <= 0:
        raise ValueError(f"{model.name} does not fit {cards} {gpu.name}")
    kv_tokens = int(room // model.kv_bytes_a_token)
    longest = min(model.context_tokens, kv_tokens - 64)
    return Profile(
        name=name,
        model=model.name,
        weights_s=weights / bandwidth,
        kv_token_s=model.kv_bytes_a_token / bandwidth,
        token_s=2 * model.parameters / (gpu.flops * cards * FLOPS_SHARE),
        overhead_s=_STEP_OVERHEAD_S + all_reduces_s,
        kv_tokens=kv_tokens,
        max_total_tokens=longest,
        max_input_tokens=longest - 1,
    )


#: No time at all: what a client or a service costs by itself.
NO_OP: Final = Profile(
    name="no-op",
    model="simulated/no-op",
    weights_s=0.0,
    kv_token_s=0.0,
    token_s=0.0,
    overhead_s=0.0,
    kv_tokens=4_000_000,
    max_batch=1024,
    step_tokens=1_000_000,
)

PROFILES: Final[Mapping[str, Profile]] = {
    profile.name: profile
    for profile in (
        NO_OP,
        roofline("llama-8b-1xa100", LLAMA_8B, A100, 1),
        roofline("llama-8b-1xh100", LLAMA_8B, H100, 1),
        roofline("llama-70b-4xa100", LLAMA_70B, A100, 4),
        roofline("llama-70b-4xh100", LLAMA_70B, H100, 4),
    )
}
