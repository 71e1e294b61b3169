"""The autoscaler's arithmetic: ceilings, tolerance, windows and policies; its bounds as laws."""

from __future__ import annotations

from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.autoscale.keda import (
    Autoscaler,
    ConsumerUnknown,
    Trigger,
    jsz_url,
    lag_of,
    replicas_for,
    scaling_of,
)
from bench.autoscale.plot import Panel, Series, svg

TRIGGER = Trigger("urgent", "$G", "NODES", "large-0", 6)


def manifest(**changed: Any) -> dict[str, Any]:
    """A ScaledObject like ours: the sum of two consumers, 6 a replica."""
    triggers = [
        {
            "name": name,
            "type": "nats-jetstream",
            "metadata": {"account": "$G", "stream": "NODES", "consumer": name, "lagThreshold": "6"},
        }
        for name in ("urgent", "normal")
    ]
    behavior = {
        "scaleUp": {
            "stabilizationWindowSeconds": 0,
            "policies": [
                {"type": "Percent", "value": 100, "periodSeconds": 15},
                {"type": "Pods", "value": 4, "periodSeconds": 15},
            ],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": 300,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
        },
    }
    modifiers = {"formula": "urgent + normal", "target": "6"}
    spec = {
        "scaleTargetRef": {"name": "worker-large"},
        "minReplicaCount": 1,
        "maxReplicaCount": 8,
        "pollingInterval": 15,
        "triggers": triggers,
        "advanced": {
            "scalingModifiers": modifiers,
            "horizontalPodAutoscalerConfig": {"behavior": behavior},
        },
    }
    return {"spec": spec | changed}


def lags(total: float) -> dict[str, float]:
    return {"urgent": total / 2, "normal": total / 2}


def jsz(consumers: list[dict[str, Any]]) -> dict[str, Any]:
    stream = {"name": "NODES", "state": {"last_seq": 4711}, "consumer_detail": consumers}
    return {"account_details": [{"name": "$G", "stream_detail": [stream]}]}


def test_lag_is_what_waits_and_what_runs() -> None:
    consumer = {"name": "large-0", "num_pending": 4, "num_ack_pending": 3}
    assert lag_of(jsz([consumer]), TRIGGER) == 7


def test_a_missing_consumer_counts_as_everything_there_ever_was() -> None:
    assert lag_of(jsz([]), TRIGGER) == 4711


def test_a_missing_stream_is_an_error() -> None:
    with pytest.raises(ConsumerUnknown):
        lag_of({"account_details": []}, TRIGGER)


def test_the_query_is_the_scalers() -> None:
    asked = jsz_url("nats-headless.skelgraph.svc.cluster.local:8222", "$G")
    assert asked.endswith(":8222/jsz?acc=$G&consumers=true&config=true")


@pytest.mark.parametrize(
    ("value", "current", "wished"),
    [(0, 2, 0), (6, 1, 1), (7, 1, 2), (6.5, 1, 1), (12, 1, 2), (13, 2, 2), (14, 2, 3), (25, 3, 5)],
)
def test_the_ceiling_of_value_by_target_unless_within_a_tenth(
    value: float, current: int, wished: int
) -> None:
    assert replicas_for(value, 6, current) == wished


def test_two_bands_count_together() -> None:
    scaler = Autoscaler(scaling_of(manifest()))
    # Each alone would ask for 3 replicas; together they are the work of 6.
    assert scaler.wish({"urgent": 18, "normal": 18}, 1) == 6


def test_out_at_once_but_at_most_doubled_or_four_more() -> None:
    scaler = Autoscaler(scaling_of(manifest()))
    assert scaler.decide(lags(100), 1, 0) == 5
    assert scaler.decide(lags(100), 5, 5) == 5  # the period is not over
    assert scaler.decide(lags(100), 5, 15) == 8


def test_in_after_the_window_and_one_a_minute() -> None:
    scaler = Autoscaler(scaling_of(manifest()))
    assert scaler.decide(lags(24), 4, 0) == 4
    assert scaler.decide(lags(0), 4, 299) == 4
    assert scaler.decide(lags(0), 4, 301) == 3
    assert scaler.decide(lags(0), 3, 330) == 3
    assert scaler.decide(lags(0), 3, 362) == 2
    assert scaler.decide(lags(0), 2, 423) == 1
    assert scaler.decide(lags(0), 1, 500) == 1


def test_times_are_divided_by_the_scale() -> None:
    scaling = scaling_of(manifest(), time_scale=10)
    assert (scaling.polling_s, scaling.down.window_s) == (1.5, 30)
    assert scaling.down.policies[0].period_s == 6


def test_an_unknown_formula_is_refused() -> None:
    changed = manifest()
    changed["spec"]["advanced"]["scalingModifiers"]["formula"] = "urgent * 2"
    with pytest.raises(ValueError, match=r"urgent \* 2"):
        scaling_of(changed)


@given(st.lists(st.tuples(st.floats(0.1, 90), st.integers(0, 200)), min_size=1, max_size=60))
def test_it_stays_in_its_bounds_and_never_shrinks_by_more_than_one_a_minute(
    course: list[tuple[float, int]],
) -> None:
    scaler, now_s, current = Autoscaler(scaling_of(manifest())), 0.0, 1
    shrunk: list[float] = []
    for pause_s, lag in course:
        now_s += pause_s
        decided = scaler.decide(lags(lag), current, now_s)
        assert 1 <= decided <= 8
        assert decided >= current - 1
        if decided < current:
            shrunk.append(now_s)
        current = decided
    assert all(later - sooner >= 60 for sooner, later in pairwise(shrunk))


def test_the_drawing_is_well_formed() -> None:
    series = [Series("a < b", [(0, 1), (5, 2)]), Series("dots", [(1, 1)], "dots"), Series("", [])]
    drawn = svg("R&D", [Panel("replicas", series), Panel("zero", [Series("z", [(0, 0)], "step")])])
    root = ElementTree.fromstring(drawn)
    assert root.tag.endswith("svg")
    assert "a &lt; b" in drawn
