"""`python -m tests.chaos.cost`: what a request costs each service in CPU and memory, for sizing."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

from bench.autoscale.keda import read_jsz
from proto.messages import NodeDecoded, PlanCompleted
from proto.names import Stream
from services.runtime import logs
from tests.chaos.fleet import ROLES, Fleet, Outcome, running, under_load
from tests.chaos.load import Load
from tests.chaos.options import Options
from tests.chaos.scaling import HERE, TOKEN_S, Course

_TICKS: Final = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def rss_mib(pid: int) -> float:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4 / 1024


async def measure(folder: Path, rate: float, seconds: float) -> str:
    """Run a steady load on one service of each role and return a table."""
    async with running(Fleet(Options(deadline_s=120), folder, slots=64)) as fleet:
        for engine in fleet.engines:
            await fleet.control(engine, token_s=TOKEN_S)
        members = [await fleet.add(role, HERE) for role in ROLES]
        pids = {one.role: one.child.pid or 0 for one in [*members, *fleet.nats]}
        before = {role: cpu_s(pid) for role, pid in pids.items()}
        used: dict[str, tuple[float, float]] = {}
        stored: dict[str, int] = {}

        async def load_of(load: Load) -> None:
            await Course([(0, rate), (seconds, rate)]).send(load)
            await load.all_ended(120)
            used.update({role: (cpu_s(p) - before[role], rss_mib(p)) for role, p in pids.items()})
            stored.update(await asyncio.to_thread(bytes_stored, fleet))

        outcome = await under_load(fleet, load_of, lambda _: asyncio.sleep(0))
        return table(outcome, used, stored[Stream.EVENTS])


def bytes_stored(fleet: Fleet) -> dict[str, int]:
    """Bytes in each stream, as its server says."""
    told = read_jsz(f"127.0.0.1:{fleet.nats[0].child.spec.port}", "$G")
    streams = told["account_details"][0]["stream_detail"]
    return {one["name"]: one["state"]["bytes"] for one in streams}


def table(outcome: Outcome, used: dict[str, tuple[float, float]], stored: int) -> str:
    """CPU and memory by role, per request, node and token."""
    facts = [one.fact for told in outcome.evidence.facts.values() for one in told]
    nodes = Counter(f"worker-{fact.pool}" for fact in facts if isinstance(fact, NodeDecoded))
    tokens: Counter[str] = Counter()
    for fact in facts:
        if isinstance(fact, NodeDecoded):
            tokens[f"worker-{fact.pool}"] += fact.usage.generated_tokens
        if isinstance(fact, PlanCompleted):
            tokens["planner"] += fact.usage.generated_tokens
    requests = len(outcome.evidence.facts)
    lines = [
        "| | CPU s | ms a request | ms a node | µs a token | MiB |",
        "|---|---|---|---|---|---|",
    ]
    for role, (seconds, mib) in used.items():
        node = f"{seconds * 1e3 / nodes[role]:.1f}" if nodes[role] else "–"
        token = f"{seconds * 1e6 / tokens[role]:.0f}" if tokens[role] else "–"
        each = f"{seconds * 1e3 / requests:.1f}"
        lines.append(f"| {role} | {seconds:.1f} | {each} | {node} | {token} | {mib:.0f} |")
    held = outcome.evidence.messages[Stream.EVENTS]
    texts = sum(len(fact.text) for fact in facts if isinstance(fact, NodeDecoded))
    said = f"{requests} requests, {sum(nodes.values())} nodes, {held} facts"
    said += f", {stored / held:.0f} bytes a fact, of which texts {2 * texts / held:.0f}"
    return "\n".join([*lines, "", f"{said}, violations {len(outcome.violations)}"])


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.cost")
    parser.add_argument("--rate", type=float, default=4.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=45.0)
    args = parser.parse_args()
    logs.configure("error", "console")
    with tempfile.TemporaryDirectory(prefix="skelgraph-cost-") as folder:
        print(asyncio.run(measure(Path(folder), args.rate, args.seconds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
