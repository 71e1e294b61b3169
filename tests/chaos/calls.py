"""The engines' own logs of their calls: who called for what, from when to when."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from pathlib import Path

import orjson

Span = tuple[float, float]


@dataclass
class EngineCall:
    """A call that an engine took; instants are seconds since the epoch.

    Attributes:
        node: `texts.PLAN` for a plan.
        who: the service's name.
        over: its end; of a killed engine's call, the engine's end.
        left: whether the caller went before the end.
        said: how many tokens; -1 as long as it is not over.
        attempt: of the node, as its worker's log tells; 0 for a plan, or where it is not told.
    """

    call: str
    request: str
    node: int
    who: str
    mode: str
    began: float
    over: float | None = None
    left: bool = False
    said: int = -1
    attempt: int = 0


def read_calls(path: Path, deaths: Iterable[float], *, offset: int = 0) -> list[EngineCall]:
    """Return the calls in an engine's log.

    Args:
        path: of the log.
        deaths: when that engine died.
        offset: where to begin, in bytes.
    """
    calls: dict[str, EngineCall] = {}
    for line in path.read_bytes()[offset:].splitlines() if path.exists() else ():
        try:
            told = orjson.loads(line)
        except orjson.JSONDecodeError:  # cut by a kill
            continue
        if "began" in told:
            calls[told["call"]] = EngineCall(**told)
        elif call := calls.get(told["call"]):
            call.over, call.left, call.said = told["over"], told["left"], told["said"]
    for call in calls.values():
        if call.over is None:
            call.over = min((at for at in deaths if at >= call.began), default=time.time())
    return list(calls.values())


def note_attempts(calls: Iterable[EngineCall], log_of: Callable[[str], Path]) -> None:
    """Note which attempt each call was for: the one that its worker had begun last.

    Args:
        calls: to be completed.
        log_of: where the service of a name logs.
    """
    begun = {who: _begun(log_of(who)) for who in {call.who for call in calls if call.node >= 0}}
    for call in calls:
        tries = begun.get(call.who, {}).get((call.request, call.node), [])
        call.attempt = max((one for one in tries if one[0] <= call.began), default=(0.0, 0))[1]


def _begun(log: Path) -> dict[tuple[str, int], list[tuple[float, int]]]:
    """Return when a worker began which attempt at each node."""
    begun: dict[tuple[str, int], list[tuple[float, int]]] = {}
    for line in log.read_bytes().splitlines() if log.exists() else ():
        if b'"node_started"' in line:
            told = orjson.loads(line)
            at = datetime.fromisoformat(told["timestamp"]).timestamp()
            begun.setdefault((told["request"], told["node"]), []).append((at, told["attempt"]))
    return begun


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two calls for the same thing at the same time, by processes that could both run.

    Attributes:
        live_s: how long, without the time in which one of the two was frozen.
    """

    first: EngineCall
    second: EngineCall
    live_s: float


def overlaps(calls: Iterable[EngineCall], frozen: dict[str, list[Span]]) -> Iterator[Overlap]:
    """Yield the overlaps between calls for the same node, or plan, of a request."""
    together: dict[tuple[str, int], list[EngineCall]] = {}
    for call in calls:
        together.setdefault((call.request, call.node), []).append(call)
    for same in together.values():
        for first, second in combinations(sorted(same, key=lambda call: call.began), 2):
            span = (second.began, min(first.over or 0.0, second.over or 0.0))
            still = [*frozen.get(first.who, ()), *frozen.get(second.who, ())]
            live_s = _length_without(span, still)
            if live_s > 0:
                yield Overlap(first, second, live_s)


def _length_without(span: Span, holes: Iterable[Span]) -> float:
    """Return the length of `span` outside all `holes`."""
    begin, end = span
    length = 0.0
    for hole_begin, hole_end in sorted(holes):
        length += max(0.0, min(end, hole_begin) - begin)
        begin = max(begin, hole_end)
    return length + max(0.0, end - begin)
