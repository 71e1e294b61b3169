"""What a run found, for people: counts, delays, growth, and the evidence of each violation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from statistics import median

from proto.messages import AnswerAssembled, RequestFailed, SkeletonDrafted
from tests.chaos.calls import overlaps
from tests.chaos.evidence import Evidence, log_lines
from tests.chaos.load import Sent
from tests.chaos.remains import requests_between
from tests.chaos.run import Result
from tests.chaos.stories import Story, story_of
from tests.chaos.violations import Violation

#: So many violations are shown with their evidence.
SHOWN = 5
_AROUND_S = 5.0


def report(result: Result) -> str:
    """Return the whole report."""
    parts = [
        *_counts(result),
        *_faults(result),
        *_delays(result.evidence),
        *_figures(result),
        *_growth(result.evidence),
        *_violations(result),
    ]
    return "\n".join(parts)


def _counts(result: Result) -> Iterator[str]:
    evidence = result.evidence
    ends, codes, stories = Counter[str](), Counter[str](), 0
    for request in evidence.sent:
        story = story_of(evidence.facts.get(request, []))
        stories += bool(story.ends or story.accepted)
        ends[_end_of(story)] += 1
        if isinstance(story.end, RequestFailed):
            codes[story.end.error.code] += 1
    sent = evidence.sent.values()
    facts = sum(map(len, evidence.facts.values()))
    took = f"{len(sent)} requests in {result.took_s:.0f} s, {facts} facts"
    yield f"\nseed {result.options.seed}: {took}"
    accepted = sum(one.stored or bool(evidence.facts.get(one.request)) for one in sent)
    failed = sum(codes.values()) - codes["cancelled"]
    yield (
        f"accepted {accepted} = answered {ends['answered']} + skeletons {ends['skeleton']}"
        f" + failed {failed} + cancelled {codes['cancelled']}"
        f" (never stored: {len(sent) - accepted}, of which busy {sum(one.busy for one in sent)})"
    )
    yield f"failed by code: {_told(codes) or 'none'}"
    yield f"cancels by outcome: {_told(_cancels(evidence)) or 'none'}"
    yield _work(evidence)


def _end_of(story: Story) -> str:
    if isinstance(story.end, AnswerAssembled):
        return "answered"
    if isinstance(story.end, SkeletonDrafted):
        return "skeleton"
    return "failed" if story.end else "none"


def _cancels(evidence: Evidence) -> Counter[str]:
    return Counter(outcome for one in evidence.sent.values() for _, outcome in one.cancels)


def _work(evidence: Evidence) -> str:
    found = list(overlaps(evidence.calls, evidence.frozen))
    worst = max((one.live_s for one in found), default=0.0)
    crossed = sum(one.first.attempt != one.second.attempt for one in found)
    left = sum(call.left for call in evidence.calls)
    failed = Counter(
        fact.error.code
        for facts in evidence.facts.values()
        for story in [story_of(facts)]
        for node in story.failed.values()
        for fact in node
    )
    again = Counter((call.request, call.node) for call in evidence.calls)
    return (
        f"engine calls {len(evidence.calls)}, for {len(again)} plans and nodes; left by the caller"
        f" {left}; overlapping while both lived {len(found)}, worst {worst:.2f} s;"
        f" of different attempts {crossed}"
        f"\nfailed attempts by code: {_told(failed) or 'none'};"
        f" dead letters {len(evidence.letters)}"
    )


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common() if count)


def _faults(result: Result) -> Iterator[str]:
    total = sum(result.faults.values())
    yield f"faults {total}: {_told(Counter(result.faults)) or 'none'}"


def _delays(evidence: Evidence) -> Iterator[str]:
    """Latencies of the requests that were open when a fault of a kind struck."""
    ended = [one for one in evidence.sent.values() if one.ended_at and not one.short]
    by_kind: dict[str, list[float]] = {}
    calm: list[float] = []
    for one in ended:
        met = {fault.kind for fault in evidence.faults if _met(one, fault.at)}
        for kind in met:
            by_kind.setdefault(kind, []).append(_latency_s(one))
        if not met:
            calm.append(_latency_s(one))
    if calm:
        yield f"latency of {len(calm)} requests that no fault met: {_spread(calm)}"
    for kind, latencies in sorted(by_kind.items()):
        yield f"  open at {kind:17} {len(latencies):5}: {_spread(latencies)}"


def _met(sent: Sent, at: float) -> bool:
    return sent.sent_at <= at <= (sent.ended_at or at)


def _latency_s(sent: Sent) -> float:
    return (sent.ended_at or sent.sent_at) - sent.sent_at


def _spread(values: list[float]) -> str:
    return f"median {median(values):6.2f} s, worst {max(values):6.2f} s"


def _figures(result: Result) -> Iterator[str]:
    if figures := result.evidence.figures:
        yield from figures.lines(result.options.ack_wait_s)


def _growth(evidence: Evidence) -> Iterator[str]:
    growth = evidence.watch.growth() if evidence.watch else []
    for one in growth:
        requests = requests_between(evidence, one.warm_at, one.last_at)
        yield (
            f"  {one.role:13} {one.warm_mib:5.1f} → {one.last_mib:5.1f} MiB,"
            f" {one.kib_each(requests):>20}, {one.warm_files:.0f} → {one.last_files:.0f} open files"
            f" (second, last third; {requests} requests in between)"
        )


def _violations(result: Result) -> Iterator[str]:
    if not result.violations:
        yield "audit: 0 violations"
        return
    counts = Counter(violation.check for violation in result.violations)
    yield f"\naudit: {len(result.violations)} VIOLATIONS: {_told(counts)}"
    for check in counts:
        some = [violation for violation in result.violations if violation.check == check]
        for violation in some[:SHOWN]:
            yield from _evidence_of(result, violation)
    yield f"reproduce with --seed {result.options.seed}; kept in {result.folder}"


def _evidence_of(result: Result, violation: Violation) -> Iterator[str]:
    yield f"\n* {violation.check}: {violation.request or ''} {violation.detail}"
    facts = result.evidence.facts.get(violation.request or "", [])
    sent = result.evidence.sent.get(violation.request or "")
    if sent:
        yield f"    sent at {sent.sent_at:.2f}: {sent.ask.model_dump_json()} cancels {sent.cancels}"
    for stored in facts:
        yield f"    {stored.stored_at:.2f} #{stored.stream_seq} {str(stored.fact)[:150]}"
    times = [stored.stored_at for stored in facts] + ([sent.sent_at] if sent else [])
    for fault in result.evidence.faults:
        if times and min(times) - _AROUND_S <= fault.at <= max(times) + _AROUND_S:
            yield f"    fault {fault.at:.2f}–{fault.until:.2f} {fault.kind} {fault.target}"
    if violation.request:
        yield from (f"    {line[:260]}" for line in log_lines(result.folder, violation.request))
