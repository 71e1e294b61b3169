"""What a simulated engine is told at its start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from bench.simulated_engine.author import LengthLaw, Recorded
from bench.simulated_engine.faults import Faults
from bench.simulated_engine.profiles import NO_OP, Profile

Family = Literal["tgi", "vllm", "sglang", "llamacpp"]
FAMILIES: Final[tuple[Family, ...]] = get_args(Family)


@dataclass(kw_only=True)
class Options:
    """Everything that can be chosen.

    Args:
        family: whose wire is spoken, and whose way of batching is followed.
        profile: how long things take.
        time_scale: real seconds of one of the profile; 0.1 runs ten times faster.
        slow: factor on the duration of all steps, for faults.
        seed: of texts, lengths and guesses.
        model: name that it tells; the profile's if empty.
        api_key: asked for where the family does.
        max_concurrent_requests: TGI refuses what comes beyond.
        max_stop: TGI's limit of stop texts.
        default_max_tokens: of vLLM, where the client sets none: all that has room if None.
        prefix_cache: whether there is one.
        tells_cached_tokens: whether vLLM's usage tells what came from the cache.
        keep_alive_s: silence of a stream after which TGI sends a comment.
        lengths: of prose.
        recorded: replies to give, by a text in the last message.
        faults: what goes wrong.
    """

    family: Family = "tgi"
    profile: Profile = NO_OP
    time_scale: float = 1.0
    slow: float = 1.0
    seed: int = 0
    model: str = ""
    api_key: str = ""
    max_concurrent_requests: int = 128
    max_stop: int = 4
    default_max_tokens: int | None = None
    prefix_cache: bool = True
    tells_cached_tokens: bool = True
    keep_alive_s: float = 15.0
    lengths: LengthLaw = field(default_factory=LengthLaw)
    recorded: Sequence[Recorded] = ()
    faults: Faults = field(default_factory=Faults)

    @property
    def model_name(self) -> str:
        """The model's name on the wire."""
        return self.model or self.profile.model
