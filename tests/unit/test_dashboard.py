"""What the dashboard compares can be compared, and its picture says what Grafana would."""

from __future__ import annotations

from bench.dashboard import Target
from bench.prometheus import Series
from services.runtime import metrics


def test_a_label_that_a_series_lacks_is_no_part_of_its_name() -> None:
    slots = Target("…", "{{component}} {{worker_pool}}")
    assert slots.name(Series({"component": "planner"}, [])) == "planner"
    assert slots.name(Series({"component": "worker", "worker_pool": "large"}, [])) == "worker large"


def test_overhead_is_told_as_far_as_the_answers_time() -> None:
    answer, overhead = (
        metrics.ANSWER_S.labels("sgd")._upper_bounds,
        metrics.OVERHEAD_S._upper_bounds,
    )
    assert overhead[-len(answer) :] == answer
