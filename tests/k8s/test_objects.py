"""Objects that speak of each other agree: selectors, ports, references, budgets, autoscalers."""

from __future__ import annotations

from collections.abc import Mapping

from services.runtime.settings import ENV_PREFIX
from tests.k8s.rendering import (
    JOBS,
    NAMESPACE,
    Object,
    Rendered,
    component_of,
    containers,
    env_of,
    label_of,
    rendered,
    workloads,
)

#: Secrets that a person makes (README.md), with their keys.
SECRETS = {
    "huggingface": {"token"},
    "engine-api-key": {"api-key"},
    "nats-ca": {"ca.crt"},
    "api-keys": {"keys"},
    **{
        f"nats-{one}": {"url", "password"}
        for one in ("provision", "planner", "assembler", "worker", "gateway", "backup")
    },
}

_NATS = {"app.kubernetes.io/name": "nats"}


def matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return selector.items() <= labels.items()


def pods(one: Rendered) -> list[tuple[Object, Object]]:
    """Workloads that stay, with their templates."""
    return [(obj, template) for obj, template in workloads(one) if obj["kind"] not in JOBS]


def replicas_of(one: Rendered, workload: Object) -> int:
    """The fewest replicas that a workload has: its own figure, or its autoscaler's."""
    for scaled in one.of("ScaledObject"):
        if scaled["spec"]["scaleTargetRef"]["name"] == workload["metadata"]["name"]:
            return int(scaled["spec"]["minReplicaCount"])
    return int(workload["spec"]["replicas"])


def test_every_object_is_in_the_namespace() -> None:
    for one in rendered():
        for obj in one.objects:
            if obj["kind"] not in {"Namespace", "PriorityClass"}:
                assert obj["metadata"]["namespace"] == NAMESPACE, f"{one.name}: {label_of(obj)}"


def test_selectors_match_their_own_pods_and_nobody_elses() -> None:
    for one in rendered():
        chosen: dict[str, str] = {}
        for obj, template in pods(one):
            selector = obj["spec"]["selector"]["matchLabels"]
            assert matches(selector, template["metadata"]["labels"]), label_of(obj)
            others = [
                label_of(o) for o, t in pods(one) if matches(selector, t["metadata"]["labels"])
            ]
            assert others == [label_of(obj)], f"{one.name}: {others} share a selector"
            chosen[label_of(obj)] = str(selector)
        assert len(set(chosen.values())) == len(chosen)


def test_services_find_pods_and_their_ports_exist() -> None:
    for one in rendered():
        for service in one.of("Service"):
            selector = service["spec"]["selector"]
            found = [t for _, t in pods(one) if matches(selector, t["metadata"]["labels"])]
            assert len(found) == 1, f"{one.name}: {label_of(service)}"
            ports = [p for c in containers(found[0]) for p in c.get("ports", [])]
            known = {p["name"] for p in ports} | {p["containerPort"] for p in ports}
            sidecars = {
                p["name"]
                for c in found[0]["spec"].get("initContainers", [])
                for p in c.get("ports", [])
            }
            for port in service["spec"]["ports"]:
                assert port["targetPort"] in known
                # Older Kubernetes looks for a name among the other containers only.
                assert port["targetPort"] not in sidecars, f"{one.name}: {label_of(service)}"


def test_probes_look_at_ports_that_their_container_has() -> None:
    for one in rendered():
        for obj, template in workloads(one):
            for container in containers(template):
                names = {port["name"] for port in container.get("ports", [])}
                for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                    if probe in container:
                        assert container[probe]["httpGet"]["port"] in names, label_of(obj)


def test_monitors_find_pods_and_their_ports_exist() -> None:
    for one in rendered():
        for monitor in one.of("PodMonitor"):
            selector = monitor["spec"]["selector"]["matchLabels"]
            found = [t for _, t in pods(one) if matches(selector, t["metadata"]["labels"])]
            assert found, f"{one.name}: {label_of(monitor)}"
            names = {p["name"] for t in found for c in containers(t) for p in c.get("ports", [])}
            for endpoint in monitor["spec"]["podMetricsEndpoints"]:
                assert endpoint["port"] in names


def test_addresses_of_engines_are_services_with_that_port() -> None:
    for one in rendered():
        settings = next(o for o in one.of("ConfigMap") if "settings" in o["metadata"]["name"])
        for pool in ("large", "small"):
            for url in settings["data"][f"{ENV_PREFIX}{pool.upper()}_URLS"].split(","):
                host, _, port = url.rpartition("//")[2].partition(":")
                service = one.get("Service", host)
                assert service, f"{one.name}: {url}"
                assert int(port) in {each["port"] for each in service["spec"]["ports"]}
                assert service["spec"]["selector"]["skelgraph/pool"] == pool
                # A cluster IP would pin kept-alive connections to one pod.
                assert service["spec"]["clusterIP"] == "None"


def test_what_is_referred_to_is_there() -> None:
    for one in rendered():
        for obj, template in workloads(one):
            spec = template["spec"]
            assert one.get("ServiceAccount", spec["serviceAccountName"]), label_of(obj)
            for volume in spec.get("volumes", []):
                if "configMap" in volume:
                    assert one.get("ConfigMap", volume["configMap"]["name"])
                if "persistentVolumeClaim" in volume:
                    claim = volume["persistentVolumeClaim"]["claimName"]
                    assert one.get("PersistentVolumeClaim", claim)
                if "secret" in volume:
                    assert volume["secret"]["secretName"] in SECRETS
            for container in containers(template):
                _references_exist(one, container)
                mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
                own = {volume["name"] for volume in spec.get("volumes", [])}
                claims = obj["spec"].get("volumeClaimTemplates", [])
                assert mounted <= own | {claim["metadata"]["name"] for claim in claims}


def _references_exist(one: Rendered, container: Object) -> None:
    for source in container.get("envFrom", []):
        assert one.get("ConfigMap", source["configMapRef"]["name"])
    for entry in env_of(container).values():
        source = entry.get("valueFrom", {})
        if "configMapKeyRef" in source:
            config = one.get("ConfigMap", source["configMapKeyRef"]["name"])
            assert config, source
            assert source["configMapKeyRef"]["key"] in config["data"]
        if "secretKeyRef" in source:
            assert source["secretKeyRef"]["key"] in SECRETS[source["secretKeyRef"]["name"]]
        assert entry.get("value") != "", entry


def test_no_secret_stands_in_the_manifests() -> None:
    for one in rendered():
        assert not one.of("Secret")
        for _, template in workloads(one):
            for container in containers(template):
                for name, entry in env_of(container).items():
                    if any(word in name for word in ("TOKEN", "API_KEY", "PASSWORD")):
                        assert "secretKeyRef" in entry.get("valueFrom", {}), name


def test_every_pod_has_one_disruption_budget_that_lets_nodes_be_drained() -> None:
    for one in rendered():
        for obj, template in pods(one):
            if obj["kind"] == "StatefulSet":
                continue  # one NATS server for `dev`: any disruption is an outage
            labels = template["metadata"]["labels"]
            budgets = [
                each
                for each in one.of("PodDisruptionBudget")
                if matches(each["spec"]["selector"]["matchLabels"], labels)
            ]
            # Two budgets for a pod make every eviction fail.
            assert len(budgets) == 1, f"{one.name}: {label_of(obj)}"
            assert budgets[0]["spec"]["maxUnavailable"] >= 1


def test_a_budget_protects_what_has_more_than_one_replica() -> None:
    for one in rendered():
        if one.name.startswith("dev"):
            continue  # a single node
        fewest = {
            obj["metadata"]["name"]: replicas_of(one, obj)
            for obj, template in pods(one)
            if component_of(template) in {"planner", "assembler", "gateway"}
        }
        for budget in one.of("PodDisruptionBudget"):
            name = budget["metadata"]["name"]
            if name in fewest:
                assert fewest[name] > budget["spec"]["maxUnavailable"], name


def test_no_budget_is_left_without_pods() -> None:
    for one in rendered():
        for budget in one.of("PodDisruptionBudget"):
            selector = budget["spec"]["selector"]["matchLabels"]
            assert any(matches(selector, t["metadata"]["labels"]) for _, t in pods(one))


def test_an_autoscaler_owns_the_replicas_alone() -> None:
    for one in rendered():
        scaled = {obj["spec"]["scaleTargetRef"]["name"] for obj in one.of("ScaledObject")}
        for name in scaled:
            target = one.get("Deployment", name)
            assert target, f"{one.name}: {name} is scaled and not there"
            assert "replicas" not in target["spec"], f"{one.name}: {name}"
        for obj, _ in pods(one):
            if obj["metadata"]["name"] not in scaled:
                assert obj["spec"]["replicas"] >= 1


def test_gpus_are_as_many_as_shards() -> None:
    for one in rendered():
        for obj, template in workloads(one):
            for container in containers(template):
                shards = env_of(container).get("NUM_SHARD")
                limits = container["resources"]["limits"]
                gpus = limits.get("nvidia.com/gpu")
                assert gpus == container["resources"]["requests"].get("nvidia.com/gpu")
                assert gpus == (shards["value"] if shards else None), f"{one.name}: {label_of(obj)}"


def test_pods_spread_by_labels_that_they_have() -> None:
    for one in rendered():
        for obj, template in pods(one):
            for spread in template["spec"].get("topologySpreadConstraints", []):
                selector = spread["labelSelector"]["matchLabels"]
                assert matches(selector, template["metadata"]["labels"]), label_of(obj)


def test_network_policies_speak_of_pods_and_ports_that_exist() -> None:
    for one in rendered():
        known = [t["metadata"]["labels"] for _, t in workloads(one)]
        ports = {
            port["containerPort"]
            for _, template in workloads(one)
            for container in containers(template)
            for port in container.get("ports", [])
        }
        ports |= {53, 443, 4222, 6222, 7777, 8222}  # of NATS, which the chart brings, and outside
        for policy in one.of("NetworkPolicy"):
            selector = policy["spec"]["podSelector"]
            if policy["metadata"]["name"] not in {"nats", "clients-to-nats"}:
                assert any(_selects(selector, labels) for labels in known), label_of(policy)
            rules = [*policy["spec"].get("ingress", []), *policy["spec"].get("egress", [])]
            for rule in rules:
                assert {each["port"] for each in rule["ports"]} <= ports


def test_with_network_policies_what_must_talk_can_and_nobody_else() -> None:
    for one in rendered():
        if not one.get("NetworkPolicy", "default-deny"):
            continue
        for obj, template in workloads(one):
            component, labels = component_of(template), template["metadata"]["labels"]
            # A load balancer is no pod and has no labels.
            assert _may_enter(one, {}, labels, 8080) is (component == "gateway"), label_of(obj)
            if component in {"", "engine"}:
                continue
            assert _may_leave(one, labels, _NATS, 4222), label_of(obj)
            assert _may_enter(one, labels, _NATS, 4222), f"{one.name}: {label_of(obj)}"
            for _, engine in workloads(one):
                theirs = engine["metadata"]["labels"]
                if theirs.get("skelgraph/engine"):
                    allowed = component in {"planner", "worker"}
                    assert _may_leave(one, labels, theirs, 8080) is allowed, label_of(obj)
                    assert _may_enter(one, labels, theirs, 8080) is allowed, label_of(obj)


def _selects(selector: Object, labels: Mapping[str, str]) -> bool:
    if not matches(selector.get("matchLabels", {}), labels):
        return False
    return all(
        labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", [])
    )


def _may_leave(one: Rendered, who: Mapping[str, str], to: Mapping[str, str], port: int) -> bool:
    return _allowed(one, "egress", "to", who, to, port)


def _may_enter(one: Rendered, who: Mapping[str, str], to: Mapping[str, str], port: int) -> bool:
    return _allowed(one, "ingress", "from", to, who, port)


def _allowed(
    one: Rendered,
    way: str,
    peers: str,
    subject: Mapping[str, str],
    peer: Mapping[str, str],
    port: int,
) -> bool:
    """Whether a policy that selects `subject` lets it talk with `peer` in its namespace."""
    return any(
        port in {each["port"] for each in rule["ports"]}
        and (
            peers not in rule
            or any(
                "podSelector" in other and _selects(other["podSelector"], peer)
                for other in rule[peers]
            )
        )
        for policy in one.of("NetworkPolicy")
        if _selects(policy["spec"]["podSelector"], subject)
        for rule in policy["spec"].get(way, [])
    )
