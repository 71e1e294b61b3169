"""TGI's metrics, under its names."""

from __future__ import annotations

from typing import Final

from bench.simulated_engine.core import Core
from bench.simulated_engine.counts import Labels, Text

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
