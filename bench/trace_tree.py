"""A trace as text: one line a span, below its parent, with a bar on the request's time. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from bench.collector import ToldSpan

BAR_CHARS: Final = 40
#: What is told of a span behind its bar: attributes, each with what it is called here.
SHOWN: Final = {
    "skelgraph.operation": "operation",
    "skelgraph.mode": "mode",
    "skelgraph.node": "node",
    "skelgraph.attempt": "attempt",
    "skelgraph.pool": "pool",
    "skelgraph.difficulty": "difficulty",
    "gen_ai.usage.input_tokens": "in",
    "gen_ai.usage.cache_read.input_tokens": "cached",
    "gen_ai.usage.output_tokens": "out",
    "skelgraph.overhead_ms": "overhead_ms",
}


def draw(spans: Sequence[ToldSpan]) -> str:
    """Return the tree of one trace; times in ms from its first span's start."""
    began_at = min(span.start_at for span in spans)
    wall_s = max(span.end_at for span in spans) - began_at
    known = {span.span_id for span in spans}
    rows = [
        (depth, span)
        for root in spans
        if root.parent_id not in known
        for depth, span in _below(root, spans, 0)
    ]
    width = max(2 * depth + len(span.name) for depth, span in rows)
    lines = [
        f"{'  ' * depth + span.name:{width}} {span.service:22} "
        f"{(span.start_at - began_at) * 1000:9.1f} {span.ms:9.1f} "
        f"|{_bar(span, began_at, wall_s)}| {_told(span)}".rstrip()
        for depth, span in rows
    ]
    head = f"{'span':{width}} {'service':22} {'from ms':>9} {'ms':>9}"
    return "\n".join([f"trace {spans[0].trace_id}", head, *lines])


def _below(span: ToldSpan, spans: Sequence[ToldSpan], depth: int) -> Iterator[tuple[int, ToldSpan]]:
    yield depth, span
    for other in spans:
        if other.parent_id == span.span_id:
            yield from _below(other, spans, depth + 1)


def _bar(span: ToldSpan, began_at: float, wall_s: float) -> str:
    first = int((span.start_at - began_at) / wall_s * BAR_CHARS)
    chars = max(1, round((span.end_at - span.start_at) / wall_s * BAR_CHARS))
    first = min(first, BAR_CHARS - 1)
    return (" " * first + "█" * min(chars, BAR_CHARS - first)).ljust(BAR_CHARS)


def _told(span: ToldSpan) -> str:
    shown = [
        f"{name}={value:.1f}" if isinstance(value, float) else f"{name}={value}"
        for attribute, name in SHOWN.items()
        if (value := span.attributes.get(attribute)) is not None
    ]
    links = [f"links={len(span.links)}"] if span.links else []
    error = [f"ERROR {span.error}"] if span.error else []
    return " ".join([*shown, *links, *error])
