"""One request's trace as a collector gets it: every hop, and durations that the answer confirms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from bench.collector import Collector, ToldSpan, Value
from bench.simulated_stack import simulated_stack
from bench.trace import QUESTION, ask
from bench.trace_tree import draw
from proto.messages import AnswerAssembled, Fact, NodePlanned
from services.runtime.opening import open_client
from skelgraph.local.state import StackState

ENGINE: Final = ("--time-scale", "0.5", "--median-tokens", "60")
SERVICES: Final = {"gateway", "planner", "assembler", "worker-large", "worker-small"}
#: Between what a span says and what the answer says, as a share of the latter.
TOLERANCE: Final = 0.05


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


async def answered(state: StackState, request: str) -> tuple[list[Fact], AnswerAssembled]:
    async with open_client([state.nats_url]) as client:
        facts = [stored.fact for stored in (await client.state(request)).facts]
    (answer,) = [fact for fact in facts if isinstance(fact, AnswerAssembled)]
    return facts, answer


def below(spans: list[ToldSpan], parent: ToldSpan, name: str) -> ToldSpan:
    (found,) = [
        one for one in spans if one.parent_id == parent.span_id and one.name.split()[0] == name
    ]
    return found


async def test_a_request_is_one_trace_from_the_gateway_to_the_engines_and_back(
    collector: Collector, tmp_path: Path
) -> None:
    large = ("--profile", "llama-70b-4xh100", *ENGINE)
    small = ("--dialect", "vllm", "--profile", "llama-8b-1xh100", *ENGINE)
    env = collector.environment
    async with simulated_stack(tmp_path, env=env, large=large, small=small) as state:
        assert state.gateway_url
        await ask(state.gateway_url, QUESTION)
        request = str(collector.trace_with("request")[0].attributes["skelgraph.request"])
        facts, answer = await answered(state, request)
    spans = collector.trace_with("request")  # all: the services have ended and sent the rest
    print(draw(spans))
    assert {span.trace_id for span in collector.spans if span.name != "GET"} == {spans[0].trace_id}
    assert {span.service.removeprefix("skelgraph-") for span in spans} == SERVICES
    check_tree(spans, answer)
    check_durations(spans, answer, facts)
    check_genai(spans, answer)


def check_tree(spans: list[ToldSpan], answer: AnswerAssembled) -> None:
    """Each span has its parent in the trace, and links lead to the nodes that are built on."""
    known = {span.span_id for span in spans}
    http, *others = [span for span in spans if span.parent_id not in known]
    assert (http.name, http.kind, others) == ("POST /v1/chat/completions", "server", [])
    (root,) = [span for span in spans if span.name == "request"]
    assert root.parent_id == http.span_id
    names = [span.name for span in spans if span.parent_id == root.span_id]
    assert sorted(set(names)) == ["assembly", "node", "plan", "queue"]
    nodes = {span.attributes["skelgraph.node"]: span for span in spans if span.name == "node"}
    for report in answer.nodes:
        links = {nodes[need].span_id for need in report.node.needs}
        assert set(nodes[report.node.id].links) == links
        attempt = below(spans, nodes[report.node.id], "attempt")
        below(spans, nodes[report.node.id], "queue")
        below(spans, below(spans, attempt, "chat"), "first")
        below(spans, below(spans, attempt, "chat"), "decode")


def check_durations(spans: list[ToldSpan], answer: AnswerAssembled, facts: list[Fact]) -> None:
    """What the spans say adds up to what the answer says of its time."""
    timings = answer.timings
    (root,) = [span for span in spans if span.name == "request"]
    assert root.ms == pytest.approx(timings.wall_ms, rel=TOLERANCE)
    plan = below(spans, root, "plan")
    assert below(spans, plan, "chat").ms == pytest.approx(timings.plan_ms, rel=TOLERANCE)
    nodes = {span.attributes["skelgraph.node"]: span for span in spans if span.name == "node"}
    calls = {
        node: below(spans, below(spans, span, "attempt"), "chat") for node, span in nodes.items()
    }
    for report in answer.nodes:
        # A process that waits for a core between two looks at the clock is not of interest here.
        near = pytest.approx(report.decode_ms, rel=TOLERANCE, abs=50)
        assert calls[report.node.id].ms == near
    first, *_ = timings.critical_path
    (line,) = [f for f in facts if isinstance(f, NodePlanned) and f.node.id == first]
    engine_ms = line.planned_ms + sum(calls[node].ms for node in timings.critical_path)
    assert engine_ms == pytest.approx(timings.critical_engine_ms, rel=TOLERANCE)
    check_path(root, plan, nodes, calls, timings.critical_path)


def check_path(
    root: ToldSpan,
    plan: ToldSpan,
    nodes: Mapping[Value, ToldSpan],
    calls: Mapping[Value, ToldSpan],
    path: tuple[int, ...],
) -> None:
    """Along the critical path each span begins where the one before ended: nothing is untold."""
    ends = [nodes[path[0]].start_at, *(nodes[node].end_at for node in path)]
    starts = [nodes[node].start_at for node in path]
    untold_s = sum(max(0.0, start - end) for end, start in zip(ends, starts, strict=False))
    untold_s += max(0.0, plan.start_at - root.start_at) + max(0.0, root.end_at - ends[-1])
    assert untold_s * 1000 <= TOLERANCE * root.ms
    for node in path:
        assert nodes[node].start_at <= calls[node].start_at <= calls[node].end_at


def check_genai(spans: list[ToldSpan], answer: AnswerAssembled) -> None:
    calls = [span for span in spans if span.name.startswith("chat ")]
    assert {span.kind for span in calls} == {"client"}
    assert {span.attributes["gen_ai.operation.name"] for span in calls} == {"chat"}
    assert {span.attributes["gen_ai.provider.name"] for span in calls} == {"tgi", "vllm"}
    models = {report.model for report in answer.nodes} | {answer.plan.model}
    assert {span.attributes["gen_ai.request.model"] for span in calls} == models
    for name, tokens in (
        ("gen_ai.usage.input_tokens", answer.usage.prompt_tokens),
        ("gen_ai.usage.output_tokens", answer.usage.generated_tokens),
    ):
        (root,) = [span for span in spans if span.name == "request"]
        assert root.attributes[name] == tokens
        assert sum(int(str(span.attributes[name])) for span in calls) == tokens
