"""Alerts and dashboard speak of metrics that exist, can fire, and are explained."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest
import yaml
from prometheus_client import REGISTRY

from services.runtime import metrics
from tests.k8s.rendering import DEPLOY, ROOT, Object

FOLDER: Final = DEPLOY / "components" / "monitoring"
OPERATIONS: Final = ROOT / "docs" / "operations.md"
ALERT_TESTS: Final = tuple(
    Path(__file__).with_name(name) for name in ("alerts_test.yaml", "alerts_of_days_test.yaml")
)
#: Of others: TGI 3.3.7, vLLM, the NATS exporter (-jsz=all -prefix=nats), kube-state-metrics.
FOREIGN: Final = {
    "up",
    "ALERTS",
    "tgi_queue_size",
    "tgi_batch_current_size",
    "vllm:num_requests_waiting",
    "vllm:num_requests_running",
    "nats_consumer_num_pending",
    "nats_consumer_num_ack_pending",
    "nats_consumer_num_redelivered",
    "nats_stream_total_bytes",
    "nats_server_total_message_bytes",
    "nats_server_max_storage",
    "nats_server_jetstream_disabled",
    "kube_cronjob_created",
    "kube_cronjob_status_last_successful_time",
    "kube_deployment_status_replicas_ready",
    "kube_horizontalpodautoscaler_status_current_replicas",
    "kube_horizontalpodautoscaler_spec_max_replicas",
}
#: What one process sees of single engines: for people who look into a pool, not for a glance.
NOT_SHOWN: Final = {
    "skelgraph_endpoint_in_flight",
    "skelgraph_endpoint_ejections",
    "skelgraph_engine_refusals",
    "skelgraph_engine_failovers",
    "skelgraph_engine_hedges",
}
_METRIC: Final = re.compile(r"\b(?:skelgraph|tgi|vllm|nats|kube|up|ALERTS)[a-z_:]*\b(?=[{[) ]|$)")
_LABELS: Final = re.compile(r"\{[^}]*\}")
_GROUPING: Final = re.compile(r"\b(?:by|on|without|ignoring)\s*\([^)]*\)")


def rules() -> Object:
    """The Prometheus part of the PrometheusRule."""
    loaded: Object = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["spec"]
    return loaded


def alerts() -> dict[str, Object]:
    return {rule["alert"]: rule for group in rules()["groups"] for rule in group["rules"]}


def panels() -> list[tuple[str, str]]:
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    return [(p["title"], t["expr"]) for p in dashboard["panels"] for t in p["targets"]]


def samples() -> dict[str, set[str]]:
    """The samples of our metrics, each with its labels."""
    assert metrics.SLOTS
    found: dict[str, set[str]] = {}
    for collector in set(REGISTRY._collector_to_names):
        labels = set(getattr(collector, "_labelnames", ()))
        for name in REGISTRY._collector_to_names[collector]:
            if name.startswith("skelgraph_"):
                found[name] = labels | ({"le"} if name.endswith("_bucket") else set())
    return found


def metrics_in(expression: str) -> set[str]:
    """The metrics that a query asks for."""
    return set(_METRIC.findall(_GROUPING.sub(" ", _LABELS.sub(" ", expression))))


def expressions() -> list[tuple[str, str]]:
    scalers = sorted((DEPLOY / "components" / "autoscaling-engines").glob("engine-*.yaml"))
    queries = [
        (path.name, trigger["metadata"]["query"])
        for path in scalers
        for trigger in yaml.safe_load(path.read_text())["spec"]["triggers"]
        if trigger["type"] == "prometheus"
    ]
    return [(name, rule["expr"]) for name, rule in alerts().items()] + panels() + queries


@pytest.mark.parametrize(("where", "expression"), expressions())
def test_every_metric_asked_for_exists(where: str, expression: str) -> None:
    asked = metrics_in(expression)
    assert asked, where
    assert asked <= set(samples()) | FOREIGN


@pytest.mark.parametrize(("where", "expression"), expressions())
def test_every_label_asked_for_exists(where: str, expression: str) -> None:
    known = {"namespace", "component", "worker_pool", "pool", "stream_name", "consumer_name"}
    known |= {"server_name", "le", "code", "cronjob"}
    ours = set().union(*(samples().get(name, set()) for name in metrics_in(expression)))
    asked = set(re.findall(r"(\w+)(?:=~|!~|=|!=)\"", expression))
    for grouping in re.findall(r"\bby \(([^)]*)\)", expression):
        asked |= {label.strip() for label in grouping.split(",")}
    assert asked <= known | ours, where


def test_a_misspelt_metric_would_be_found() -> None:
    wrong = "sum(rate(skelgraph_request_ended_total[5m]))"
    assert not metrics_in(wrong) <= set(samples()) | FOREIGN


def test_every_alert_has_an_entry_of_its_name() -> None:
    said = OPERATIONS.read_text()
    for name, rule in alerts().items():
        assert f"\n#### {name}\n" in said, name
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["summary"]
    entries = set(re.findall(r"^#### (Skelgraph\w+)$", said, re.MULTILINE))
    assert entries == set(alerts())


@pytest.mark.timeout(240)
def test_each_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("there is no promtool (Debian: prometheus)")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules()))
    tests = [path.read_text() for path in ALERT_TESTS]
    for number, test in enumerate(tests):
        (tmp_path / f"{number}.yaml").write_text(test)
    files = [f"{number}.yaml" for number in range(len(tests))]
    for command in (["check", "rules", "rules.yaml"], ["test", "rules", *files]):
        done = subprocess.run(
            [promtool, *command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    for name in alerts():
        assert f'alertname="{name}"' in "".join(tests), f"nothing makes {name} fire"


def test_the_dashboard_shows_every_kind_of_figure() -> None:
    shown = set().union(*(metrics_in(expression) for _, expression in panels()))
    ours = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name in samples()}
    families = {name.removesuffix("_total") for name in ours}
    seen = {re.sub(r"_(bucket|total)$", "", name) for name in shown}
    assert families - seen - NOT_SHOWN == set(), "not on the dashboard"


def test_every_test_named_beside_a_practice_exists() -> None:
    said = OPERATIONS.read_text().partition("## Practices")[2]
    named = set(re.findall(r"`(test_\w+)`", said))
    assert len(named) > 30
    ours = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert {name for name in named if f"def {name}(" not in ours} == set()
    for path in re.findall(r"`(tests/[\w/]+\.py)`", said):
        assert (ROOT / path).is_file(), path
