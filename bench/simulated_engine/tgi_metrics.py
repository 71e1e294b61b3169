"""What TGI tells of itself: metrics under its names, `/info`, the headers of whole answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bench.simulated_engine.core import Core
from bench.simulated_engine.counts import Labels, Text
from bench.simulated_engine.jobs import Job
from bench.simulated_engine.options import Options
from bench.simulated_engine.tgi_checks import MAX_BEST_OF, MAX_CLIENT_BATCH, Limits

VERSION: Final = "3.3.6-dev0"
#: What TGI calls our kinds of failure.
_FAILURES: Final = {
    "overloaded": "overloaded",
    "validation": "validation",
    "generation": "generation",
    "incomplete_generation": "incomplete",
    "dropped": "dropped",
}
_SECONDS: Final = {
    "tgi_request_duration": "total",
    "tgi_request_queue_duration": "queue",
    "tgi_request_inference_duration": "inference",
    "tgi_request_mean_time_per_token_duration": "per_token",
}
_TOKENS: Final = {
    "tgi_request_input_length": "prompt",
    "tgi_request_generated_tokens": "generated",
    "tgi_request_max_new_tokens": "max_new",
}


def info(options: Options, limits: Limits) -> dict[str, object]:
    """Return what `/info` says."""
    return {
        "model_id": options.model_name,
        "model_sha": None,
        "model_pipeline_tag": "text-generation",
        "max_concurrent_requests": options.max_concurrent_requests,
        "max_best_of": MAX_BEST_OF,
        "max_stop_sequences": limits.max_stop,
        "max_input_tokens": limits.max_input_tokens,
        "max_total_tokens": limits.max_total_tokens,
        "validation_workers": 2,
        "max_client_batch_size": MAX_CLIENT_BATCH,
        "router": "text-generation-router",
        "version": VERSION,
        "sha": None,
        "docker_label": None,
    }


def metrics(core: Core) -> str:
    """Return the page. The gauges are not there before the first request, as with TGI."""
    text = Text()
    counts, batch = core.counts, core.batch
    if core.pace.steps:
        running = len(batch.running)
        text.one("gauge", "tgi_queue_size", len(batch.queue))
        text.one("gauge", "tgi_batch_current_size", running)
        used = batch.kv.held * batch.profile.block_tokens
        text.one("gauge", "tgi_batch_current_max_tokens", used)
    text.one("gauge", "tgi_batch_max_total_tokens", batch.profile.kv_tokens)
    if counts.requests:
        text.one("counter", "tgi_request_count", counts.requests)
        text.one("counter", "tgi_request_success", counts.ended.total())
        text.many("counter", "tgi_request_failure", _failures(core))
        steps: dict[Labels, float] = {(("method", "decode"),): core.pace.steps}
        text.many("counter", "tgi_batch_inference_success", steps)
        for name, key in _SECONDS.items():
            text.histogram(name, counts.seconds[key])
        for name, key in _TOKENS.items():
            text.histogram(name, counts.tokens[key])
    add_simulation(text, core)
    return str(text)


def _failures(core: Core) -> dict[Labels, float]:
    return {
        (("err", _FAILURES[kind]),): count
        for kind, count in core.counts.failed.items()
        if kind in _FAILURES
    }


def add_simulation(text: Text, core: Core) -> None:
    """Add what only a simulation can tell: its clock, its lateness and its prefix cache."""
    late = sorted(core.pace.late_s)
    text.one("gauge", "simulated_time_scale", core.options.time_scale)
    text.one("gauge", "simulated_seconds", core.batch.now_s)
    text.one("counter", "simulated_steps", core.pace.steps)
    if late:
        text.one("gauge", "simulated_late_seconds_median", late[len(late) // 2])
        text.one("gauge", "simulated_late_seconds_max", late[-1])
    text.one("counter", "simulated_prefix_queried_tokens", core.batch.queried_tokens)
    text.one("counter", "simulated_prefix_hit_tokens", core.batch.hit_tokens)
    text.one("counter", "simulated_generated_tokens", core.counts.generated_tokens)


def timings(jobs: Sequence[Job]) -> list[tuple[bytes, bytes]]:
    """Return the headers that tell the times of a whole answer, in virtual time."""
    first = min(job.sequence.arrived_s for job in jobs)
    last = max(job.sequence.ended_s or 0.0 for job in jobs)
    queued_s = max((job.sequence.admitted_s or first) - first for job in jobs)
    generated = sum(job.sequence.generated for job in jobs)
    inference_ms = (last - first - queued_s) * 1000
    told = {
        "x-compute-type": "gpu+optimized",
        "x-compute-time": f"{last - first:.6f}",
        "x-compute-characters": sum(len("".join(job.ask.prompt)) for job in jobs),
        "x-total-time": round((last - first) * 1000),
        "x-validation-time": 0,
        "x-queue-time": round(queued_s * 1000),
        "x-inference-time": round(inference_ms),
        "x-time-per-token": round(inference_ms / generated),
        "x-prompt-tokens": sum(job.prompt_tokens for job in jobs),
        "x-generated-tokens": generated,
    }
    return [(name.encode(), str(value).encode()) for name, value in told.items()]
