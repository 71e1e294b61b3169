"""TGI's checks of what is asked, in its order and with its messages; pure.

From TGI 3.3.7, router/src/validation.rs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bench.simulated_engine.asked import GenerateParameters
from bench.simulated_engine.sequences import REQUEUE_TOKENS

MAX_BEST_OF: Final = 2
MAX_TOP_N_TOKENS: Final = 5
#: Prompts of one completion.
MAX_CLIENT_BATCH: Final = 4


class Invalid(Exception):
    """What is asked is not taken; the text says why."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a TGI was started with."""

    max_input_tokens: int
    max_total_tokens: int
    max_stop: int


def check(asked: GenerateParameters, inputs: str, limits: Limits, *, streams: bool) -> None:
    """Check all that needs no tokens.

    Raises:
        Invalid: something is not taken.
    """
    for complaint in _complaints(asked, inputs, limits, streams=streams):
        raise Invalid(complaint)


def _complaints(
    asked: GenerateParameters, inputs: str, limits: Limits, *, streams: bool
) -> Iterator[str]:
    if streams and (asked.best_of or 1) > 1:
        yield "`best_of` != 1 is not supported when streaming tokens"
    if streams and asked.decoder_input_details:
        yield "`decoder_input_details` == true is not supported when streaming tokens"
    yield from _best_of(asked)
    yield from _sampling(asked)
    if asked.max_new_tokens == 0:
        yield "`max_new_tokens` must be strictly positive"
    if len(asked.stop) > limits.max_stop:
        given = len(asked.stop)
        yield f"`stop` supports up to {limits.max_stop} stop sequences. Given: {given}"
    if asked.seed is not None and (asked.best_of or 1) > 1:
        yield "`seed` must not be set when `best_of` > 1"
    if (asked.top_n_tokens or 0) > MAX_TOP_N_TOKENS:
        given = asked.top_n_tokens or 0
        yield f"`top_n_tokens` must be >= 0 and <= {MAX_TOP_N_TOKENS}. Given: {given}"
    if not inputs:
        yield "`inputs` cannot be empty"
    if asked.truncate is not None and not 0 < asked.truncate <= limits.max_input_tokens:
        most = limits.max_input_tokens
        yield f"`truncate` must be strictly positive and less than {most}. Given: {asked.truncate}"


def _best_of(asked: GenerateParameters) -> Iterator[str]:
    best_of = 1 if asked.best_of is None else asked.best_of
    if not 0 < best_of <= MAX_BEST_OF:
        yield f"`best_of` must be > 0 and <= {MAX_BEST_OF}. Given: {best_of}"
    chosen = (asked.temperature, asked.top_k, asked.top_p, asked.typical_p)
    if best_of > 1 and not asked.do_sample and all(value is None for value in chosen):
        yield "you must use sampling when `best_of` is > 1"


def _sampling(asked: GenerateParameters) -> Iterator[str]:
    if asked.temperature is not None and asked.temperature <= 0:
        yield "`temperature` must be strictly positive"
    if asked.repetition_penalty is not None and asked.repetition_penalty <= 0:
        yield "`repetition_penalty` must be strictly positive"
    if asked.frequency_penalty is not None and not -2 <= asked.frequency_penalty <= 2:
        yield "`frequency_penalty` must be >= -2.0 and <= 2.0"
    if asked.top_p is not None and not 0 < asked.top_p < 1:
        yield "`top_p` must be > 0.0 and < 1.0"
    if asked.typical_p is not None and not 0 < asked.typical_p < 1:
        yield "`typical_p` must be > 0.0 and < 1.0"
    if asked.top_k is not None and asked.top_k <= 0:
        yield "`top_k` must be strictly positive"


def new_tokens(input_tokens: int, max_new_tokens: int | None, limits: Limits) -> int:
    """Return how many tokens may be generated after a prompt of `input_tokens`.

    It may be more than there is room for: only the first turn in the batch is checked.

    Raises:
        Invalid: the prompt is too long, or with its reply.
    """
    total = limits.max_total_tokens
    allowed = max(total - input_tokens, 0) if max_new_tokens is None else max_new_tokens
    first_turn = min(allowed, REQUEUE_TOKENS)
    if input_tokens + first_turn > total:
        raise Invalid(
            f"`inputs` tokens + `max_new_tokens` must be <= {total}. "
            f"Given: {input_tokens} `inputs` tokens and {first_turn} `max_new_tokens`"
        )
    if input_tokens > limits.max_input_tokens:
        most = limits.max_input_tokens
        raise Invalid(f"`inputs` must have less than {most} tokens. Given: {input_tokens}")
    return allowed
