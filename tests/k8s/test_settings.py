"""What the manifests tell the services is what these read; the names are the contract's."""

from __future__ import annotations

import re
from typing import Final

import pytest

from docs.generate import services
from proto.names import PREFIX, Pool, Stream
from services.runtime.settings import ENV_PREFIX, EngineSettings, ServiceSettings
from services.runtime.streams import StreamLimits, consumer_configs
from tests.k8s.rendering import (
    JOBS,
    NAMESPACE,
    Object,
    Rendered,
    containers,
    env_of,
    label_of,
    rendered,
    workloads,
)

#: What a reference to a Secret stands for, as far as the settings are concerned.
_SECRET: Final = "nats://user:password@nats:4222"
_PATHS: Final = {f"{ENV_PREFIX}{name}" for name in ("NATS_CA", "NATS_CREDS", "KEYS_FILE")}
_LOADED: Final[dict[tuple[str, frozenset[tuple[str, str]]], ServiceSettings]] = {}
_DRAIN_MARGIN_S: Final = 2  # services/runtime/lifecycle.py: what may hang after the drain


def service_of(container: Object) -> str | None:
    """Which of our services a container runs."""
    args = container.get("args", [])
    found = re.fullmatch(r"services\.(\w+)", args[0]) if args else None
    return found[1] if found else None


def ours(one: Rendered) -> list[tuple[Object, Object, Object, str]]:
    """Each workload of ours, its template, its container and its service."""
    return [
        (obj, template, container, service)
        for obj, template in workloads(one)
        for container in template["spec"]["containers"]
        if (service := service_of(container))
    ]


def environment(one: Rendered, container: Object) -> dict[str, str]:
    """All that the container finds in its environment."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        config = one.get("ConfigMap", source["configMapRef"]["name"])
        assert config, f"{one.name}: no ConfigMap {source['configMapRef']['name']}"
        found |= config["data"]
    for name, entry in env_of(container).items():
        found[name] = entry.get("value", _SECRET)
    # A path of the pod: here any file that is there.
    return {name: __file__ if name in _PATHS else value for name, value in found.items()}


def settings_of(
    one: Rendered, container: Object, service: str, monkeypatch: pytest.MonkeyPatch
) -> ServiceSettings:
    """What the service makes of its environment; a bad value ends the test."""
    told = environment(one, container)
    key = (service, frozenset(told.items()))
    if key not in _LOADED:
        with monkeypatch.context() as patch:
            for name, value in told.items():
                patch.setenv(name, value)
            _LOADED[key] = services()[service].load([])
    return _LOADED[key]


def test_every_service_is_deployed() -> None:
    for one in rendered():
        optional = set() if "backup" in one.name else {"backup"}
        assert {service for *_, service in ours(one)} == set(services()) - optional, one.name


def test_a_variable_in_a_container_is_a_setting_of_its_service() -> None:
    for one in rendered():
        for obj, _, container, service in ours(one):
            known = {f"{ENV_PREFIX}{name.upper()}" for name in services()[service].model_fields}
            assert set(env_of(container)) <= known, f"{one.name}: {label_of(obj)}"


def test_a_variable_in_a_config_map_is_a_setting_of_a_service_that_reads_it() -> None:
    for one in rendered():
        readers: dict[str, set[str]] = {}
        for _, _, container, service in ours(one):
            for source in container["envFrom"]:
                name = source["configMapRef"]["name"]
                fields = services()[service].model_fields
                readers.setdefault(name, set()).update(f"{ENV_PREFIX}{f.upper()}" for f in fields)
        for name, known in readers.items():
            config = one.get("ConfigMap", name)
            assert config
            assert set(config["data"]) <= known, f"{one.name}: {name}"


def test_the_services_accept_every_value(monkeypatch: pytest.MonkeyPatch) -> None:
    for one in rendered():
        for _, _, container, service in ours(one):
            settings = settings_of(one, container, service, monkeypatch)
            if isinstance(settings, EngineSettings):
                assert settings.large_urls
                assert settings.small_urls


def test_a_misspelt_variable_would_be_found() -> None:
    *_, service = ours(rendered()[0])[0]
    known = {f"{ENV_PREFIX}{name.upper()}" for name in services()[service].model_fields}
    assert f"{ENV_PREFIX}DRAIN_SECONDS" not in known
    assert f"{ENV_PREFIX}DRAIN_S" in known


def test_all_services_agree_on_what_must_be_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for one in rendered():
        loaded = [settings_of(one, c, s, monkeypatch) for *_, c, s in ours(one)]
        assert len({(each.partitions, each.ack_wait_s) for each in loaded}) == 1, one.name


def test_health_pages_are_reachable_where_the_probes_and_monitors_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for one in rendered():
        for obj, _, container, service in ours(one):
            settings = settings_of(one, container, service, monkeypatch)
            if obj["kind"] in JOBS:
                continue
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            assert ports["health"] == settings.health_port
            assert settings.health_host in {"0.0.0.0", "::"}
            for probe, path in (("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
                assert container[probe]["httpGet"] == {"path": path, "port": "health"}


def test_the_kubelet_waits_longer_than_a_service_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    for one in rendered():
        for obj, template, container, service in ours(one):
            if obj["kind"] in JOBS:
                continue
            settings = settings_of(one, container, service, monkeypatch)
            pre_stop = container.get("lifecycle", {}).get("preStop", {})
            waits_s = pre_stop.get("sleep", {}).get("seconds", 0)
            grace_s = template["spec"]["terminationGracePeriodSeconds"]
            needs_s = waits_s + settings.drain_s + _DRAIN_MARGIN_S
            assert grace_s > needs_s, f"{one.name}: {label_of(obj)}"


def test_a_worker_takes_the_pool_of_its_label() -> None:
    for one in rendered():
        pools = {}
        for obj, template, container, service in ours(one):
            if service == "worker":
                pool = environment(one, container)["SKELGRAPH_POOL"]
                assert template["metadata"]["labels"]["skelgraph/pool"] == pool
                pools[pool] = obj["metadata"]["name"]
        assert pools == {str(pool): f"worker-{pool}" for pool in Pool}


def test_a_worker_does_not_ask_more_of_an_engine_than_it_takes() -> None:
    for one in rendered():
        slots = {
            service: int(environment(one, container)["SKELGRAPH_SLOTS"])
            for *_, container, service in ours(one)
            if service in {"worker", "planner"}
        }
        for _, template in workloads(one):
            for container in containers(template):
                limit = env_of(container).get("MAX_CONCURRENT_REQUESTS")
                # Even if the largest pool met at one engine, or the planners did.
                if limit:
                    assert slots["worker"] + slots["planner"] <= int(limit["value"])


def test_scalers_look_at_consumers_that_exist() -> None:
    consumers = {
        (stream.value, str(c["durable_name"])) for stream, c in consumer_configs(StreamLimits())
    }
    looked = set()
    for one in rendered():
        for obj in one.of("ScaledObject"):
            for trigger in obj["spec"]["triggers"]:
                if trigger["type"] == "nats-jetstream":
                    meta = trigger["metadata"]
                    assert (meta["stream"], meta["consumer"]) in consumers
                    looked.add((obj["metadata"]["name"], meta["stream"], meta["consumer"]))
    # Each band of each pool, by its own workers and engines, and the requests by the planners.
    for pool in Pool:
        for stream, config in consumer_configs(StreamLimits()):
            name = str(config["durable_name"])
            if stream is Stream.NODES and name.startswith(pool):
                assert {
                    (f"worker-{pool}", stream, name),
                    (f"engine-{pool}", stream, name),
                } <= looked
    assert ("planner", Stream.REQUESTS, "planner") in looked


def test_the_alert_on_a_full_queue_and_log_knows_their_bounds() -> None:
    for one in rendered():
        streams = next(obj for obj in one.of("ConfigMap") if "streams" in obj["metadata"]["name"])
        limits = {key: int(value) for key, value in streams["data"].items()}
        for obj in one.of("PrometheusRule"):
            if one.name.startswith("dev"):
                continue  # smaller streams; its alerts are to be looked at, not relied upon
            rules = {r["alert"]: r["expr"] for g in obj["spec"]["groups"] for r in g["rules"]}
            half = limits["SKELGRAPH_MAX_QUEUED_REQUESTS"] // 2
            assert rules["SkelgraphRequestsQueue"].endswith(f"> {half}")
            most = round(limits["SKELGRAPH_EVENTS_MAX_BYTES"] * 0.8)
            assert rules["SkelgraphEventLogFull"].endswith(f"> {most}")


def test_addresses_outside_of_the_namespace_name_the_namespace() -> None:
    for one in rendered():
        for obj in one.of("ScaledObject"):
            assert obj["metadata"]["namespace"] == NAMESPACE
            for trigger in obj["spec"]["triggers"]:
                endpoint = trigger["metadata"].get("natsServerMonitoringEndpoint")
                if endpoint:
                    assert endpoint == f"nats-headless.{NAMESPACE}.svc.cluster.local:8222"
                for said in re.findall(r'namespace="(\w+)"', trigger["metadata"].get("query", "")):
                    assert said == NAMESPACE


def test_subjects_in_nats_permissions_are_the_contracts() -> None:
    from skelgraph.auth.permissions import SERVICES, tenant_permissions

    for permissions in [*SERVICES.values(), tenant_permissions("acme")]:
        for subject in (*permissions.publish, *permissions.subscribe):
            names = {stream.value for stream in Stream}
            if match := re.search(r"SKELGRAPH_\w+", subject):
                assert match[0] in names, subject
            elif not subject.startswith(("$JS.", "_INBOX", "$SRV.")):
                assert subject.startswith(f"{PREFIX}."), subject
