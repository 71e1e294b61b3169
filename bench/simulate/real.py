"""The same arrivals through the real services, on simulated engines that repeat the same texts."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.evaluate.replay import Length, Part, Replay, as_lines, question_of, replies
from bench.questions import NotAnswered
from bench.simulate import policies
from bench.simulate.figures import Answered
from bench.simulate.work import END_TOKENS, WORD_TOKENS, Arrival, PlannedNode, Question
from bench.simulate.world import Deployment
from bench.simulated_engine.processes import simulated_engines
from proto.messages import AnswerAssembled, TokensDecoded
from proto.names import new_request_id
from services.runtime.client import Client, make_request
from services.runtime.credentials import Access
from skelgraph.local.config import PoolConfig, StackConfig
from skelgraph.session import Where, reach

#: Longest that an answer may take, in real seconds.
DEADLINE_S: Final = 3600
_TITLES: Final = (
    "Causes and background", "Costs and savings", "Effects on people", "First steps",
    "Main risks", "What experts say", "Short history", "Technical limits", "Open questions",
    "Examples from practice", "Comparison of options", "Outlook and advice",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Way:
    """A way to run the real services.

    Args:
        name: as the simulation's policy is called.
        fields: of every request.
        settings: of all services.
    """

    name: str
    fields: Mapping[str, object]
    settings: Mapping[str, str] = field(default_factory=dict)


DIRECT: Final = Way(policies.DIRECT.name, {"mode": "direct"}, {"NODES_A_SLOT": "0"})
EAGER: Final = Way("eager, two bands", {"mode": "auto"}, {"NODES_A_SLOT": "0"})
OURS: Final = Way(policies.OURS.name, {"mode": "auto"})
WAYS: Final = (DIRECT, EAGER, OURS)


async def run(
    deployment: Deployment, way: Way, coming: Sequence[Arrival], *, scale: float, adaptive: bool
) -> list[Answered]:
    """Return how the requests fared, in seconds of the profiles.

    Args:
        deployment: what serves; one endpoint a pool is run, with the slots of all of them.
        way: how the services are set.
        coming: the requests.
        scale: real seconds of one of the profiles.
        adaptive: whether easy nodes go to the small pool.

    Raises:
        NotAnswered: a request failed.
    """
    asked = {one.question.name: replay(one.question) for one in coming}
    async with _serving(deployment, way, list(asked.values()), scale) as client:
        start_s = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(
                    _ask(client, way, one, asked[one.question.name], start_s, scale, adaptive),
                    name=f"ask at {one.at_s:.1f}",
                )
                for one in coming
            ]
        token_s = deployment.large.step_s(1, 0)
        return [
            Answered(one.tenant, *task.result(), one.question.direct_tokens * token_s)
            for one, task in zip(coming, running, strict=True)
        ]


def replay(question: Question) -> Replay:
    """Return the question as engines repeat it: a plan of as many tokens, texts as long."""
    # One of the gate's words for a direct answer: an engine says only what fits the grammar.
    word = f"{question.shape}\n" if question.nodes else "fact"
    parts = [Part(text=word, tokens=WORD_TOKENS)]
    parts += [Part(text=f"{_line(node)}\n", tokens=node.line_tokens) for node in question.nodes]
    if question.nodes:
        parts.append(Part(text="end", tokens=END_TOKENS))
    lengths = [(node.id, node.tokens) for node in question.nodes] + [(0, question.direct_tokens)]
    return Replay(
        question=question.name.replace(" ", "-"),
        category="",
        question_tokens=40,
        method="any",
        plan=tuple(parts),
        # The token that ends a text is one more.
        nodes=tuple(Length(node=id_, tokens=many - 1, finish="stop") for id_, many in lengths),
    )


def _line(node: PlannedNode) -> str:
    needs = f" needs {','.join(map(str, node.needs))}" if node.needs else ""
    title = _TITLES[node.id % len(_TITLES)]
    return f"{node.id}. {title} | {'easy' if node.easy else 'hard'} long{needs}"


async def _ask(
    client: Client,
    way: Way,
    arrival: Arrival,
    asked: Replay,
    start_s: float,
    scale: float,
    adaptive: bool,
) -> tuple[float, float]:
    """Return the time of the answer and of its first token."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(max(0.0, start_s + arrival.at_s * scale - loop.time()))
    request = new_request_id()
    first_s: dict[int, float] = {}
    came_s = loop.time()
    fields = {
        "deadline_s": DEADLINE_S,
        "adaptive": adaptive,
        "owner": arrival.tenant,
        "sampling": {"max_tokens": 1024},
        **way.fields,
    }
    await client.submit(make_request(question=question_of(asked, request[:6]), **fields), request)
    async for told in client.follow(request):
        if isinstance(told, TokensDecoded):
            first_s.setdefault(told.node, loop.time() - came_s)
        elif isinstance(told, AnswerAssembled):
            first = first_s.get(told.nodes[0].node.id, loop.time() - came_s)
            return told.timings.wall_ms / 1000 / scale, first / scale
    raise NotAnswered(request)


@asynccontextmanager
async def _serving(
    deployment: Deployment, way: Way, asked: Sequence[Replay], scale: float
) -> AsyncIterator[Client]:
    """Run the engines and all services within the block."""
    with (
        tempfile.TemporaryDirectory(prefix="skelgraph-simulate-") as name,
        _engines(deployment, asked, scale, Path(name)) as (large, small),
    ):
        slots_large = deployment.slots * deployment.large_endpoints
        slots_small = deployment.slots * deployment.small_endpoints
        settings = {
            "MAX_IN_FLIGHT": "1024",
            "FIRST_TOKEN_TIMEOUT_S": "600",
            "SILENT_AFTER_S": "600",
            **way.settings,
        }
        stack = StackConfig(
            large=PoolConfig(model="", urls=(large,), slots=slots_large),
            small=PoolConfig(model="", urls=(small,), slots=slots_small),
            state_dir=Path(name) / "stack",
            log_level="warning",
            env={f"SKELGRAPH_{key}": value for key, value in settings.items()},
        )
        async with reach(Where(None, Access(), stack, "quiet"), may_start=True) as session:
            yield session.over_nats


@contextmanager
def _engines(
    deployment: Deployment, asked: Sequence[Replay], scale: float, folder: Path
) -> Iterator[tuple[str, str]]:
    file = folder / "replies.jsonl"
    file.write_text(as_lines(line for one in asked for line in replies(one)))
    common = ["--replies", str(file), "--dialect", "tgi", "--time-scale", str(scale)]
    common += ["--max-concurrent-requests", "1024"]
    pools = (deployment.large, deployment.small)
    with simulated_engines(*([*common, "--profile", one.name] for one in pools)) as running:
        large, small = running
        yield large.url, small.url
