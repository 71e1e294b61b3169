"""KEDA's scaler of NATS JetStream and the Horizontal Pod Autoscaler, as arithmetic.

Sources: kedacore/keda `pkg/scalers/nats_jetstream_scaler.go` (the query, the lag, what a missing
consumer counts); kubernetes `pkg/controller/podautoscaler` (replica_calculator.go: ceiling and
tolerance; horizontal.go: stabilisation and policies). Pure, but for :func:`read_jsz`.
"""

from __future__ import annotations

import json
import math
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Json = Mapping[str, Any]

#: Within this share of the target the autoscaler leaves the replicas alone.
TOLERANCE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Trigger:
    """One `nats-jetstream` trigger of a ScaledObject."""

    name: str
    account: str
    stream: str
    consumer: str
    threshold: float


@dataclass(frozen=True, slots=True)
class Policy:
    """How many replicas may come or go in a period.

    Args:
        kind: `Pods` or `Percent`.
        value: of pods, or percent of the replicas at the period's beginning.
        period_s: the period.
    """

    kind: str
    value: float
    period_s: float

    def change(self, replicas_at_start: float) -> float:
        """How many replicas the policy lets come or go."""
        share = replicas_at_start * self.value / 100
        return self.value if self.kind == "Pods" else share


@dataclass(frozen=True, slots=True)
class Direction:
    """`scaleUp` or `scaleDown` of a behaviour."""

    window_s: float
    policies: tuple[Policy, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """What a ScaledObject says, with all times divided by `time_scale`."""

    target_name: str
    minimum: int
    maximum: int
    polling_s: float
    triggers: tuple[Trigger, ...]
    #: Target of the triggers' sum; None: each trigger has its own, and the highest wish counts.
    sum_target: float | None
    up: Direction
    down: Direction


def scaling_of(manifest: Json, time_scale: float = 1) -> Scaling:
    """Return what a rendered ScaledObject says.

    Args:
        manifest: the object; its triggers are all `nats-jetstream`, its formula a plain sum.
        time_scale: by which its times are divided, for experiments shorter than a coffee break.

    Raises:
        ValueError: it has a formula that is not the sum of its triggers.
    """
    spec = manifest["spec"]
    triggers = tuple(_trigger(one) for one in spec["triggers"])
    modifiers = spec["advanced"].get("scalingModifiers")
    if modifiers and modifiers["formula"] != " + ".join(one.name for one in triggers):
        raise ValueError(f"only a sum of all triggers is known here, not {modifiers['formula']!r}")
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    return Scaling(
        target_name=spec["scaleTargetRef"]["name"],
        minimum=spec["minReplicaCount"],
        maximum=spec["maxReplicaCount"],
        polling_s=spec["pollingInterval"] / time_scale,
        triggers=triggers,
        sum_target=float(modifiers["target"]) if modifiers else None,
        up=_direction(behavior["scaleUp"], time_scale),
        down=_direction(behavior["scaleDown"], time_scale),
    )


def _trigger(told: Json) -> Trigger:
    meta = told["metadata"]
    threshold = float(meta.get("lagThreshold", 10))
    return Trigger(told["name"], meta["account"], meta["stream"], meta["consumer"], threshold)


def _direction(told: Json, time_scale: float) -> Direction:
    policies = tuple(
        Policy(one["type"], one["value"], one["periodSeconds"] / time_scale)
        for one in told["policies"]
    )
    return Direction(told["stabilizationWindowSeconds"] / time_scale, policies)


def jsz_url(endpoint: str, account: str) -> str:
    """Return the address that the scaler asks."""
    return f"http://{endpoint}/jsz?acc={account}&consumers=true&config=true"


def read_jsz(endpoint: str, account: str, timeout_s: float = 3) -> Json:
    """Ask a NATS server's monitoring port as the scaler does; raises `OSError`."""
    url = jsz_url(endpoint, account)
    with urllib.request.urlopen(url, timeout=timeout_s) as reply:
        told: Json = json.load(reply)
    return told


class ConsumerUnknown(Exception):
    """The server tells nothing of the stream."""


def lag_of(jsz: Json, trigger: Trigger) -> int:
    """Return what waits and what runs at a trigger's consumer.

    A consumer that is missing counts as the whole stream's last sequence, as it does in KEDA:
    make the consumers first.

    Raises:
        ConsumerUnknown: the account or the stream is missing.
    """
    for account in jsz.get("account_details") or ():
        if account["name"] != trigger.account:
            continue
        for stream in account.get("stream_detail") or ():
            if stream["name"] == trigger.stream:
                return _lag_in(stream, trigger.consumer)
    raise ConsumerUnknown(f"{trigger.account} {trigger.stream}")


def _lag_in(stream: Json, name: str) -> int:
    for consumer in stream.get("consumer_detail") or ():
        if consumer["name"] == name:
            return int(consumer["num_pending"]) + int(consumer["num_ack_pending"])
    return int(stream["state"]["last_seq"])


def replicas_for(value: float, target: float, current: int) -> int:
    """Return the wish of one external metric of type `AverageValue`."""
    ratio = value / (target * current) if current else math.inf
    return current if abs(1 - ratio) <= TOLERANCE else math.ceil(value / target)


@dataclass
class Autoscaler:
    """The Horizontal Pod Autoscaler that KEDA makes of a ScaledObject; it remembers.

    Args:
        scaling: what the ScaledObject says.
    """

    scaling: Scaling
    _wishes: list[tuple[float, int]] = field(default_factory=list)
    _changes: list[tuple[float, int]] = field(default_factory=list)

    def wish(self, lags: Mapping[str, float], current: int) -> int:
        """Return how many replicas the figures alone ask for, within the bounds."""
        scaling = self.scaling
        if scaling.sum_target:
            wished = replicas_for(sum(lags.values()), scaling.sum_target, current)
        else:
            each = [
                replicas_for(lags[one.name], one.threshold, current) for one in scaling.triggers
            ]
            wished = max(each)
        return max(scaling.minimum, min(scaling.maximum, wished))

    def decide(self, lags: Mapping[str, float], current: int, now_s: float) -> int:
        """Return how many replicas there shall be from now on.

        Args:
            lags: of each trigger, by its name.
            current: replicas that there shall be so far.
            now_s: the clock; never goes back.
        """
        self._wishes.append((now_s, self.wish(lags, current)))
        stable = self._stabilised(current, now_s)
        decided = self._limited(stable, current, now_s)
        if decided != current:
            self._changes.append((now_s, decided - current))
        return decided

    def _stabilised(self, current: int, now_s: float) -> int:
        """Not more than the least wish of the up window, not less than the most of the down one."""
        lowest = min(self._recent(self.scaling.up.window_s, now_s))
        highest = max(self._recent(self.scaling.down.window_s, now_s))
        return lowest if current < lowest else min(current, highest)

    def _recent(self, window_s: float, now_s: float) -> Sequence[int]:
        return [wish for at, wish in self._wishes if at >= now_s - window_s]

    def _limited(self, wanted: int, current: int, now_s: float) -> int:
        if wanted > current:
            ceilings = [self._bound(one, current, now_s, 1) for one in self.scaling.up.policies]
            return min(wanted, math.ceil(max(ceilings)))
        if wanted < current:
            floors = [self._bound(one, current, now_s, -1) for one in self.scaling.down.policies]
            return max(wanted, math.floor(min(floors)))
        return current

    def _bound(self, policy: Policy, current: int, now_s: float, sign: int) -> float:
        """How far one policy lets the replicas go in this period (the widest of them counts)."""
        recent = [
            change
            for at, change in self._changes
            if at > now_s - policy.period_s and change * sign > 0
        ]
        at_start = current - sum(recent)
        reach = at_start + sign * policy.change(at_start)
        return max(current, reach) if sign > 0 else min(current, reach)
