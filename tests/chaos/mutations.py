"""Does the harness notice? Each promise is broken in a copy of the tree, which must fail.

`python -m tests.chaos.mutations [NAME …]` prints a table; exit code 1 if a mutant survives.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
_COPIED: Final = ("proto", "services", "skelgraph", "tests")
_COMMON: Final = ("--minutes", "0.7", "--deadline-s", "25", "--seed", "5")
_LIMIT_S: Final = 300


@dataclass(frozen=True, slots=True)
class Mutation:
    """A change to the code that breaks one promise.

    Args:
        name: what is missing.
        path: of the file, in the repository.
        old: text that must stand in it once.
        new: what takes its place.
        argv: of the chaos run that is to notice.
        expected: violations of which at least one must be found; if empty, none may be.
    """

    name: str
    path: str
    old: str
    new: str
    argv: tuple[str, ...]
    expected: tuple[str, ...]


#: A thawed assembler releases what it was told before its partition went to another, while
#: that one's release of the same runs: then nothing but the stream refuses it.
_THAWED_ASSEMBLERS: Final = (
    *("--only", "freeze_assembler", "--faults-per-minute", "60", "--requests", "100"),
    *("--token-s", "0.1", "--deadline-s", "90"),
)
#: Nodes last longer than the ack wait and its margin: who is thawed must leave them to others.
_THAWED_WORKERS: Final = (
    *("--only", "freeze_worker", "--faults-per-minute", "60", "--requests", "40"),
    *("--token-s", "0.2", "--deadline-s", "180"),
)
_KILLS: Final = "kill_planner,kill_assembler,kill_worker"

MUTATIONS: Final = (
    Mutation(
        name="nothing (must pass)",
        path="services/runtime/work.py",
        old="                await delivery.in_progress()\n",
        new="                await delivery.in_progress()\n",
        argv=(
            *("--only", f"{_KILLS},freeze_worker,freeze_planner,engine_slow,engine_pool_error"),
            *("--faults-per-minute", "90", "--requests", "200", "--backoff-s", "1.5"),
            *("--deadline-s", "90"),
        ),
        expected=(),
    ),
    Mutation(
        name="nothing, slow nodes (must pass)",
        path="services/runtime/work.py",
        old="                await delivery.in_progress()\n",
        new="                await delivery.in_progress()\n",
        argv=_THAWED_ASSEMBLERS,
        expected=(),
    ),
    Mutation(
        name="uniqueness of requests",
        path="services/runtime/streams.py",
        old="            return config | unique | queue\n",
        new="            return config | queue\n",
        argv=("--only", "engine_slow", "--faults-per-minute", "60", "--requests", "200"),
        expected=("done twice at once",),
    ),
    Mutation(
        name="uniqueness of nodes",
        path="services/runtime/streams.py",
        old='            return config | unique | {"retention"',
        new='            return config | {"retention"',
        argv=_THAWED_ASSEMBLERS,
        expected=("done twice at once",),
    ),
    Mutation(
        name="first fact wins",
        path="services/runtime/publisher.py",
        old='marked[_EXPECTED_LAST] = "0"',
        new="pass",
        argv=("--only", f"{_KILLS},freeze_worker,freeze_planner", "--faults-per-minute", "60"),
        expected=("fact said twice", "ended twice"),
    ),
    Mutation(
        name="ack after effect (assembler)",
        path="services/assembler/partition.py",
        old="        event = Event(delivery, fact)\n",
        new="        event = Event(delivery, fact); delivery.ack_soon()\n",
        # What waits in a dead assembler's memory only is a retry in its backoff.
        argv=(
            *("--only", "kill_assembler,engine_pool_error", "--backoff-s", "1.5"),
            *("--faults-per-minute", "90", "--requests", "200"),
        ),
        expected=("lost", "unexplained failure"),
    ),
    Mutation(
        name="ack after effect (worker, planner)",
        path="services/runtime/work.py",
        old="            await self._handler(job)\n            await job.delivery.ack()\n",
        new="            await job.delivery.ack()\n            await self._handler(job)\n",
        argv=("--only", "kill_worker,kill_planner", "--faults-per-minute", "60"),
        expected=("lost", "unexplained failure"),
    ),
    Mutation(
        name="in-progress marks",
        path="services/runtime/work.py",
        old="                await delivery.in_progress()\n",
        new="                assert delivery\n",
        argv=("--only", "engine_slow", "--faults-per-minute", "60"),
        expected=("done twice at once",),
    ),
    Mutation(
        name="leaving what lapsed",
        path="services/runtime/work.py",
        old="            if self.is_late and self._on_lapse:\n",
        new="            if self._on_lapse and len(self) < 0:\n",
        argv=_THAWED_WORKERS,
        expected=("done twice at once",),
    ),
    Mutation(
        name="nothing, thawed workers (must pass)",
        path="services/runtime/work.py",
        old="            if self.is_late and self._on_lapse:\n",
        new="            if self.is_late and self._on_lapse:\n",
        argv=_THAWED_WORKERS,
        expected=(),
    ),
    Mutation(
        name="recovery of unknown requests",
        path="services/assembler/partition.py",
        old="if not first or await events.has_ended(request):",
        new="if delivery.times < 0:",
        argv=("--only", "kill_assembler", "--faults-per-minute", "60"),
        expected=("lost", "unexplained failure"),
    ),
    Mutation(
        name="dead letters",
        path="services/assembler/partition.py",
        old="self._start(open_request, self._ledger.bury(dead, open_request.headers), BURY)",
        new="assert dead",
        argv=("--only", "engine_pool_error", "--faults-per-minute", "60"),
        expected=("dead letter",),
    ),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the harness said of a mutant."""

    mutation: Mutation
    code: int
    found: str
    caught: bool


def main(names: list[str]) -> int:
    """Try the mutations; return 1 if one is not caught."""
    chosen = [one for one in MUTATIONS if not names or any(name in one.name for name in names)]
    outcomes = [_tried(one) for one in chosen]
    print("\n".join(_table(outcomes)))
    return 0 if outcomes and all(one.caught for one in outcomes) else 1


def _tried(mutation: Mutation) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="skelgraph-mutant-") as folder:
        root = Path(folder)
        for name in _COPIED:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, root / name, ignore=ignored)
        _patch(root, mutation)
        return _run(root, mutation)


def _patch(root: Path, mutation: Mutation) -> None:
    path = root / mutation.path
    text = path.read_text()
    if text.count(mutation.old) != 1:
        raise SystemExit(
            f"{mutation.name}: {mutation.path} does not hold this once: {mutation.old}"
        )
    path.write_text(text.replace(mutation.old, mutation.new))


def _run(root: Path, mutation: Mutation) -> Outcome:
    command = (sys.executable, "-m", "tests.chaos", *_COMMON, *mutation.argv)
    print(f"without {mutation.name} …", file=sys.stderr, flush=True)
    done = subprocess.run(  # the services are found in the folder that the run begins in
        (*command, "--keep", str(root / "chaos")),
        cwd=root,
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    audit = re.search(r"VIOLATIONS: (.*)", done.stdout)
    found = audit[1] if audit else (done.stdout or done.stderr).strip().splitlines()[-1]
    caught = bool(audit) and any(name in found for name in mutation.expected)
    if not mutation.expected:
        caught = done.returncode == 0
    if not caught:
        print(done.stdout, file=sys.stderr)
    return Outcome(mutation, done.returncode, found, caught)


def _table(outcomes: list[Outcome]) -> Iterator[str]:
    yield f"{'without':36} {'exit':>4}  {'':8} violations"
    for one in outcomes:
        said = ("caught" if one.mutation.expected else "passed") if one.caught else "SURVIVED"
        yield f"{one.mutation.name:36} {one.code:>4}  {said:8} {one.found}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
