"""What a chaos run is told on its command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import Final, Literal

#: Requests a second where their number is not given.
USUAL_RATE: Final = 4.0
REAL_RATE: Final = 0.2
#: Pace of a scripted engine while all is well.
TOKEN_S: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """A chaos run.

    Args:
        minutes: how long load and faults last.
        seed: of the load and of the faults.
        requests: how many are sent in that time.
        profile: one NATS server, or a cluster of three.
        engine: scripted processes, or the real local engine.
        faults_per_minute: how many faults are injected.
        only: kinds of fault to choose from; all of the profile if empty.
        without: kinds of fault to leave out.
        keep: folder for logs and stores; a temporary one, removed after a clean run, if None.
        deadline_s: of requests that have no short deadline on purpose.
        ack_wait_s: of all consumers.
        backoff_s: before the second retry of a node.
        measure: rounds of the measurement of recovery and cancel, after the load.
        token_s: pace of the scripted engines while all is well.
    """

    minutes: float = 1.0
    seed: int = 1
    requests: int = 240
    profile: Literal["single", "cluster"] = "single"
    engine: Literal["scripted", "real"] = "scripted"
    faults_per_minute: float = 25.0
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    keep: Path | None = None
    deadline_s: float = 90.0
    ack_wait_s: float = 2.0
    backoff_s: float = 0.2
    measure: int = 0
    token_s: float = TOKEN_S


def parse(argv: Sequence[str] | None = None) -> Options:
    """Return the options on the command line; the seed is drawn if none is given."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Load, faults by seed, and an audit of what the streams then hold.",
    )
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--requests", type=int, help="default: 4 a second")
    parser.add_argument("--profile", choices=["single", "cluster"], default="single")
    parser.add_argument("--engine", choices=["scripted", "real"], default="scripted")
    parser.add_argument("--faults-per-minute", type=float, default=25.0)
    parser.add_argument("--only", default="", help="kinds of fault, separated by commas")
    parser.add_argument("--without", default="", help="kinds of fault to leave out")
    parser.add_argument("--keep", type=Path, help="folder for logs and stores")
    parser.add_argument("--deadline-s", type=float, default=90.0)
    parser.add_argument("--ack-wait-s", type=float, default=2.0)
    parser.add_argument("--backoff-s", type=float, help="default: 0.2, real engines 2")
    parser.add_argument(
        "--measure", type=int, default=0, help="rounds of measuring recovery and cancel"
    )
    parser.add_argument("--token-s", type=float, default=TOKEN_S, help="engines' pace")
    args = parser.parse_args(argv)
    real = args.engine == "real"
    rate = REAL_RATE if real else USUAL_RATE
    return Options(
        minutes=args.minutes,
        seed=SystemRandom().randrange(10**6) if args.seed is None else args.seed,
        requests=args.requests or max(1, round(args.minutes * 60 * rate)),
        profile=args.profile,
        engine=args.engine,
        faults_per_minute=args.faults_per_minute,
        only=_split(args.only),
        without=_split(args.without),
        keep=args.keep,
        deadline_s=args.deadline_s,
        ack_wait_s=args.ack_wait_s,
        # A real engine takes seconds to load its model.
        backoff_s=args.backoff_s or (2.0 if real else 0.2),
        measure=args.measure,
        token_s=args.token_s,
    )


def _split(names: str) -> tuple[str, ...]:
    return tuple(name for name in names.split(",") if name)
