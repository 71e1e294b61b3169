"""`python -m tests.chaos.scaling`: KEDA's arithmetic on a real server, while load rises and falls.

The monitoring endpoint of a real nats-server is queried as KEDA's scaler does; the autoscaler's
arithmetic, fed with the rendered ScaledObjects, says how many planners and workers there shall be;
processes are started and told to end accordingly. Afterwards the chaos harness's audit.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.autoscale.keda import Autoscaler, Scaling, lag_of, read_jsz, scaling_of
from bench.autoscale.plot import Panel, Series, svg
from services.runtime import logs
from tests.chaos.fleet import Fleet, Outcome, Version, running, under_load
from tests.chaos.load import Load
from tests.chaos.options import Options
from tests.k8s.rendering import render_with

ROOT: Final = Path(__file__).parents[2]
HERE: Final = Version("now", ROOT)
#: Of the deployment's slots, and so of its targets: processes here are smaller, machines too.
SLOTS: Final = 4
TARGET: Final = 0.75 * SLOTS
#: Engines write a token in this time: a node takes about a second.
TOKEN_S: Final = 0.03
ASSEMBLERS: Final = 2


@dataclass(frozen=True, slots=True)
class Sample:
    """The figures of one poll.

    Args:
        at: seconds since the beginning.
        lags: what waits and runs at each trigger's consumer.
        wanted: replicas that the autoscaler has decided on, by workload.
        ready: replicas that take work.
    """

    at: float
    lags: dict[str, float]
    wanted: dict[str, int]
    ready: dict[str, int]


@dataclass
class Course:
    """A load that rises and falls: requests a second at points of time, straight lines between."""

    points: Sequence[tuple[float, float]]

    @property
    def length_s(self) -> float:
        """When it is over."""
        return self.points[-1][0]

    def rate(self, at: float) -> float:
        """Requests a second at a moment."""
        for (t0, r0), (t1, r1) in zip(self.points, self.points[1:], strict=False):
            if t0 <= at <= t1:
                return r0 + (r1 - r0) * (at - t0) / (t1 - t0)
        return 0.0

    async def send(self, load: Load) -> None:
        """Send requests at that pace; open ones do not hold back new ones."""
        began, number, due = time.monotonic(), 0, 0.0
        while (at := time.monotonic() - began) < self.length_s:
            due += self.rate(at) * 0.05
            while due >= 1:
                load.send(number)
                number, due = number + 1, due - 1
            await asyncio.sleep(0.05)


@dataclass
class Scaler:
    """Does with processes what KEDA does with pods.

    Args:
        fleet: whose services come and go.
        scalings: of each workload.
    """

    fleet: Fleet
    scalings: dict[str, Scaling]
    samples: list[Sample] = field(default_factory=list)
    _under_way: set[asyncio.Task[object]] = field(default_factory=set)

    async def run(self, until: asyncio.Event) -> None:
        """Poll and act until told to stop; then wait for what is under way."""
        scalers = {name: Autoscaler(one) for name, one in self.scalings.items()}
        wanted = {name: one.minimum for name, one in self.scalings.items()}
        pause_s = min(one.polling_s for one in self.scalings.values())
        began = time.monotonic()
        while not until.is_set():
            lags = await asyncio.to_thread(self._lags)
            for name, scaler in scalers.items():
                own = {one.name: lags[one.consumer] for one in scaler.scaling.triggers}
                wanted[name] = scaler.decide(own, wanted[name], time.monotonic())
                self._go_to(name, wanted[name])
            ready = {name: len(self.fleet.of(name)) for name in scalers}
            self.samples.append(Sample(time.monotonic() - began, lags, dict(wanted), ready))
            await asyncio.sleep(pause_s)
        if self._under_way:
            await asyncio.wait(self._under_way)
        for task in self._under_way:
            task.result()

    def _lags(self) -> dict[str, float]:
        endpoint = f"127.0.0.1:{self.fleet.nats[0].child.spec.port}"
        triggers = [one for scaling in self.scalings.values() for one in scaling.triggers]
        told = read_jsz(endpoint, triggers[0].account)
        return {one.consumer: lag_of(told, one) for one in triggers}

    def _go_to(self, role: str, count: int) -> None:
        there = self.fleet.of(role)
        for _ in range(count - len(there)):
            self._start(self.fleet.add(role, HERE), f"start {role}")
        # The Deployment picks its victim blindly; the oldest here, which has the most to lose.
        for one in there[: max(0, len(there) - count)]:
            self._start(self.fleet.retire(one), f"retire {one.name}")

    def _start(self, coroutine: object, name: str) -> None:
        assert asyncio.iscoroutine(coroutine)
        self._under_way.add(asyncio.create_task(coroutine, name=name))


def scalings(time_scale: float) -> dict[str, Scaling]:
    """What the rendered ScaledObjects say, for this run's slots."""
    rendered = render_with(None, ["autoscaling"])
    found = {}
    for obj in rendered.of("ScaledObject"):
        if all(one["type"] == "nats-jetstream" for one in obj["spec"]["triggers"]):
            _shrink(obj["spec"])
            scaling = scaling_of(obj, time_scale)
            found[scaling.target_name] = scaling
    return found


def _shrink(spec: dict[str, object]) -> None:
    """Three quarters of the slots that a process has here, instead of those of a pod."""
    assert isinstance(spec["triggers"], list)
    assert isinstance(spec["advanced"], dict)
    for trigger in spec["triggers"]:
        trigger["metadata"]["lagThreshold"] = str(TARGET)
    if modifiers := spec["advanced"].get("scalingModifiers"):
        modifiers["target"] = str(TARGET)
    spec["maxReplicaCount"] = min(5, int(str(spec["maxReplicaCount"])))


async def scale(
    folder: Path, course: Course, time_scale: float, seed: int = 1
) -> tuple[Outcome, Scaler]:
    """Run the course and return the audit's outcome and the figures."""
    options = Options(seed=seed, deadline_s=120)
    async with running(Fleet(options, folder, slots=SLOTS)) as fleet:
        for engine in fleet.engines:
            await fleet.control(engine, token_s=TOKEN_S)
        scaler = Scaler(fleet, scalings(time_scale))
        for role, count in {name: one.minimum for name, one in scaler.scalings.items()}.items():
            for _ in range(count):
                await fleet.add(role, HERE)
        for _ in range(ASSEMBLERS):
            await fleet.add("assembler", HERE)
        calm = asyncio.Event()

        async def load_of(load: Load) -> None:
            await course.send(load)
            await load.all_ended(options.deadline_s)
            # Until the last replica that may go has gone.
            slowest = max(
                one.down.window_s + one.down.policies[0].period_s * (one.maximum + 1)
                for one in scaler.scalings.values()
            )
            limit_s = time.monotonic() + slowest
            while time.monotonic() < limit_s and not at_rest(scaler):  # noqa: ASYNC110 - processes
                await asyncio.sleep(0.2)
            calm.set()

        outcome = await under_load(fleet, load_of, lambda _: scaler.run(calm))
    return outcome, scaler


def at_rest(scaler: Scaler) -> bool:
    """Whether nothing is left to do and every workload is back at its fewest replicas."""
    last = scaler.samples[-1] if scaler.samples else None
    return (
        last is not None
        and not sum(last.lags.values())
        and all(
            last.ready.get(name) == last.wanted[name] == one.minimum
            for name, one in scaler.scalings.items()
        )
    )


def drawing(outcome: Outcome, scaler: Scaler, title: str) -> str:
    """The run as SVG: queue, replicas, answer time over time."""
    began = min(sent.sent_at for sent in outcome.evidence.sent.values())
    names = list(scaler.scalings)
    lags = [
        Series(
            name,
            [
                (one.at, sum(one.lags[t.consumer] for t in scaler.scalings[name].triggers))
                for one in scaler.samples
            ],
        )
        for name in names
    ]
    wanted = [
        Series(name, [(one.at, one.wanted[name]) for one in scaler.samples], "step")
        for name in names
    ]
    times = [
        (sent.sent_at - began, sent.ended_at - sent.sent_at)
        for sent in outcome.evidence.sent.values()
        if sent.ended_at and not sent.cancels
    ]
    panels = [
        Panel("lag: waiting and running, as KEDA sees it", lags),
        Panel("replicas", wanted),
        Panel(
            "seconds from request to answer, by the time of asking",
            [Series("a request", times, "dots")],
        ),
    ]
    return svg(title, panels)


def summary(outcome: Outcome, scaler: Scaler) -> str:
    """The run in figures."""
    sent = outcome.evidence.sent.values()
    times = sorted(one.ended_at - one.sent_at for one in sent if one.ended_at)
    median = statistics.median(times)
    p95 = times[int(len(times) * 0.95)]
    ups = sum(deed.kind == "scale_up" for deed in outcome.fleet.deeds)
    downs = sum(deed.kind == "scale_down" for deed in outcome.fleet.deeds)
    peak = {name: max(one.wanted[name] for one in scaler.samples) for name in scaler.scalings}
    last = scaler.samples[-1].ready
    lines = [
        f"requests {len(times)} of {len(sent)} ended; violations {len(outcome.violations)}",
        f"answer time s: median {median:.1f}, p95 {p95:.1f}, most {times[-1]:.1f}",
        f"processes started {ups}, told to end {downs} (in all, with those of the beginning)",
        f"most replicas {peak}, at the end {last}",
        f"most lag {max(sum(one.lags.values()) for one in scaler.samples):.0f}",
    ]
    return "\n".join([*lines, *(f"VIOLATION {one}" for one in outcome.violations)])


def main() -> int:
    """Run, draw and report; 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.scaling")
    parser.add_argument("--peak", type=float, default=4.0, help="requests a second at most")
    parser.add_argument("--seconds", type=float, default=150.0, help="length of the load")
    parser.add_argument("--time-scale", type=float, default=15.0, help="KEDA's times divided by it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", type=Path, default=ROOT / "docs" / "images" / "scaling.svg")
    args = parser.parse_args()
    logs.configure("error", "console")
    course = rise_and_fall(args.peak, args.seconds)
    with tempfile.TemporaryDirectory(prefix="skelgraph-scaling-") as folder:
        outcome, scaler = asyncio.run(scale(Path(folder), course, args.time_scale, args.seed))
    args.plot.parent.mkdir(parents=True, exist_ok=True)
    title = f"A load that rises and falls; KEDA's times divided by {args.time_scale:g}"
    args.plot.write_text(drawing(outcome, scaler, title))
    print(summary(outcome, scaler))
    return 1 if outcome.violations else 0


def rise_and_fall(peak: float, seconds: float) -> Course:
    """Quiet, a rise, a plateau, a fall, quiet."""
    low = peak / 10
    shares = ((0.0, low), (0.1, low), (0.3, peak), (0.6, peak), (0.75, low), (1.0, low))
    return Course([(share * seconds, rate) for share, rate in shares])


if __name__ == "__main__":
    sys.exit(main())
