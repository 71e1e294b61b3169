"""What a stack tells whoever started it, one event a transition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class StackStep(StrEnum):
    """What happened to a part of the stack."""

    FETCHING = "fetching"
    STARTING = "starting"
    READY = "ready"
    WARNING = "warning"
    DIED = "died"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    KILLED = "killed"


@dataclass(frozen=True, slots=True)
class StackEvent:
    """A step of a part (`nats-server`, `engine-large`, `planner`, a model, `stack`).

    `took_s` comes with `ready`; the bytes come with `fetching`, whose `detail` is the stage.
    """

    step: StackStep
    part: str
    detail: str = ""
    took_s: float | None = None
    done_bytes: int = 0
    total_bytes: int = 0


Report = Callable[[StackEvent], None]
