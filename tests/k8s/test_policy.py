"""The practices of docs/operations.md, one test each: privileges, probes, drains, limits."""

from __future__ import annotations

import re
from collections.abc import Iterator

from docs.generate import services
from services.runtime.settings import ENV_PREFIX
from services.runtime.streams import StreamLimits
from tests.k8s.nats_values import as_config, values
from tests.k8s.rendering import (
    DEPLOY,
    JOBS,
    Object,
    Rendered,
    component_of,
    containers,
    env_of,
    label_of,
    rendered,
    workloads,
)

#: Only TGI's and vLLM's images run as root: libpython of TGI >= 3.1 lies under /root.
ROOT_IMAGES = ("text-generation-inference", "vllm-openai")
#: Where NVIDIA's CDI hook needs a writable root; the patch says how to close it.
WRITABLE = {("gpu", "engine")}


def each_pod() -> Iterator[tuple[Rendered, Object, Object]]:
    for one in rendered():
        for obj, template in workloads(one):
            yield one, obj, template


def each_container() -> Iterator[tuple[Rendered, Object, Object, Object]]:
    for one, obj, template in each_pod():
        for container in containers(template):
            yield one, obj, template, container


def test_containers_have_no_privileges() -> None:
    for _, obj, _, container in each_container():
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False, label_of(obj)
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not context.get("privileged")


def test_roots_are_read_only_but_where_a_hook_writes_to_it() -> None:
    writable = set()
    for one, _, _, container in each_container():
        if container["securityContext"]["readOnlyRootFilesystem"] is not True:
            writable.add((one.name.split("+")[0], container["name"]))
    assert writable == WRITABLE


def test_nobody_is_root_but_images_that_must() -> None:
    for one, obj, template, container in each_container():
        merged = template["spec"]["securityContext"] | container["securityContext"]
        if any(image in container["image"] for image in ROOT_IMAGES):
            # Or the pod would never start: CreateContainerConfigError.
            assert merged["runAsNonRoot"] is False, f"{one.name}: {label_of(obj)}"
            assert merged["runAsUser"] == 0
        else:
            assert merged["runAsNonRoot"] is True, f"{one.name}: {label_of(obj)}"
            assert merged["runAsUser"] >= 1000


def test_system_calls_are_filtered() -> None:
    for _, obj, template in each_pod():
        profile = template["spec"]["securityContext"]["seccompProfile"]
        assert profile == {"type": "RuntimeDefault"}, label_of(obj)


def test_pods_share_nothing_with_their_node() -> None:
    for _, obj, template in each_pod():
        spec = template["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), label_of(obj)
        assert not any("hostPath" in volume for volume in spec.get("volumes", []))


def test_no_pod_has_a_token_of_the_cluster_or_the_default_account() -> None:
    for one, _, template in each_pod():
        assert template["spec"]["automountServiceAccountToken"] is False
        assert template["spec"]["serviceAccountName"] != "default"
        for account in one.of("ServiceAccount"):
            assert account["automountServiceAccountToken"] is False
        assert not one.of("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")


def test_service_links_are_off() -> None:
    for _, obj, template in each_pod():
        assert template["spec"]["enableServiceLinks"] is False, label_of(obj)


def test_images_are_pinned_and_named_once() -> None:
    for one, obj, _, container in each_container():
        name, _, tag = container["image"].rpartition(":")
        assert name, f"{one.name}: {label_of(obj)}: {container['image']}"
        assert tag not in {"latest", ""}
        assert container.get("imagePullPolicy") != "Always"
    found: dict[str, set[str]] = {}
    for _, _, _, container in each_container():
        name, _, tag = container["image"].rpartition(":")
        found.setdefault(name, set()).add(tag)
    assert {name: tags for name, tags in found.items() if len(tags) > 1} == {}


def test_what_runs_for_long_has_probes_with_slack() -> None:
    for one, obj, _, container in each_container():
        if obj["kind"] in JOBS or container["name"] == "download":
            continue
        live, ready = container["livenessProbe"], container["readinessProbe"]
        where = f"{one.name}: {label_of(obj)} {container['name']}"
        # Readiness notices soon; a restart needs patience.
        assert ready["periodSeconds"] * ready.get("failureThreshold", 3) <= 15, where
        assert live["periodSeconds"] * live["failureThreshold"] >= 60, where
        assert min(live["timeoutSeconds"], ready["timeoutSeconds"]) >= 3, where
        for probe in (live, ready):
            assert "initialDelaySeconds" not in probe, where


def test_an_engine_has_time_to_load_and_its_rollout_more() -> None:
    for one, obj, _, container in each_container():
        if container["name"] != "engine":
            continue
        startup = container["startupProbe"]
        budget_s = startup["periodSeconds"] * startup["failureThreshold"]
        assert budget_s >= 600
        assert obj["spec"]["progressDeadlineSeconds"] > budget_s, f"{one.name}: {label_of(obj)}"
        # A long prefill holds the shard's loop.
        assert container["readinessProbe"]["timeoutSeconds"] >= 10
        assert container["livenessProbe"]["failureThreshold"] >= 10


def test_an_engine_is_forgotten_before_it_stops_and_drains_before_it_is_killed() -> None:
    for one, obj, template, container in each_container():
        if container["name"] != "engine" or container.get("restartPolicy") == "Always":
            continue  # as a sidecar it ends after its only client
        sleep_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        grace_s = template["spec"]["terminationGracePeriodSeconds"]
        assert sleep_s >= 5
        assert grace_s > sleep_s + drain_s(container), f"{one.name}: {label_of(obj)}"


def drain_s(container: Object) -> float:
    """How long an engine may take after SIGTERM, as it is told."""
    told = env_of(container).get("GRACEFUL_TERMINATION_TIMEOUT")
    if told:
        return 2 * float(told["value"])  # the router, then the shards
    found = re.search(r"--shutdown-timeout=(\d+)", " ".join(container.get("args", [])))
    return float(found[1]) if found else 0.0


def test_engines_do_not_wait_for_spare_gpus_in_a_rollout() -> None:
    for one, obj, _, container in each_container():
        if container["name"] == "engine":
            rolling = obj["spec"]["strategy"]["rollingUpdate"]
            assert rolling == {"maxSurge": 0, "maxUnavailable": 1}, f"{one.name}: {label_of(obj)}"


def test_services_are_replaced_before_they_go() -> None:
    for one, obj, template in each_pod():
        names = {container["name"] for container in containers(template)}
        if obj["kind"] == "Deployment" and "engine" not in names:
            rolling = obj["spec"]["strategy"]["rollingUpdate"]
            assert rolling == {"maxSurge": 1, "maxUnavailable": 0}, f"{one.name}: {label_of(obj)}"


def test_shards_have_shared_memory_and_tgi_a_place_to_write() -> None:
    for one, obj, template, container in each_container():
        if (
            container["name"] != "engine"
            or "nvidia.com/gpu" not in container["resources"]["limits"]
        ):
            continue
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        shm = volumes[mounts["/dev/shm"]]["emptyDir"]
        assert shm == {"medium": "Memory", "sizeLimit": "1Gi"}, f"{one.name}: {label_of(obj)}"
        assert {"/tmp", "/data"} <= set(mounts)
        if "text-generation-inference" in container["image"]:
            assert "/usr/src/out" in mounts


def test_an_emptydir_has_a_limit() -> None:
    for _, obj, template in each_pod():
        for volume in template["spec"].get("volumes", []):
            if "emptyDir" in volume:
                assert "sizeLimit" in volume["emptyDir"], label_of(obj)


def test_what_lies_on_the_nodes_disk_is_within_the_pods_limit() -> None:
    for one, obj, template in each_pod():
        limits = [c["resources"]["limits"].get("ephemeral-storage") for c in containers(template)]
        disks = [
            volume["emptyDir"]["sizeLimit"]
            for volume in template["spec"].get("volumes", [])
            if "emptyDir" in volume and volume["emptyDir"].get("medium") != "Memory"
        ]
        if disks and all(limits):
            where = f"{one.name}: {label_of(obj)}"
            assert sum(map(in_bytes, disks)) < sum(in_bytes(str(each)) for each in limits), where


def in_bytes(quantity: str) -> int:
    """A quantity of Kubernetes in Mi or Gi."""
    return int(quantity[:-2]) * {"Mi": 1024**2, "Gi": 1024**3}[quantity[-2:]]


def test_memory_is_limited_and_cpu_is_not() -> None:
    for one, obj, _, container in each_container():
        resources = container["resources"]
        assert {"cpu", "memory"} <= set(resources["requests"]), f"{one.name}: {label_of(obj)}"
        assert "memory" in resources["limits"]
        assert "cpu" not in resources["limits"]


def test_tgi_listens_everywhere_and_calls_nobody() -> None:
    for _, _, _, container in each_container():
        if "text-generation-inference" in container["image"] and container["name"] == "engine":
            env = {name: entry.get("value") for name, entry in env_of(container).items()}
            assert env["HOSTNAME"] == "0.0.0.0"
            assert env["PORT"] == str(container["ports"][0]["containerPort"])
            assert env["USAGE_STATS"] == "off"


def test_the_hubs_token_is_the_engines_alone() -> None:
    seen = set()
    for _, obj, template, container in each_container():
        if container["image"].split(":")[0].endswith("skelgraph"):
            assert not {"HF_TOKEN", "HF_HUB_OFFLINE"} & set(env_of(container)), label_of(obj)
            seen.add(component_of(template))
    assert seen == set(services())


def test_replicas_spread_over_nodes() -> None:
    for one, obj, template in each_pod():
        if obj["kind"] == "Deployment":
            spread = template["spec"]["topologySpreadConstraints"]
            keys = {each["topologyKey"] for each in spread}
            assert "kubernetes.io/hostname" in keys, f"{one.name}: {label_of(obj)}"
            assert {each["whenUnsatisfiable"] for each in spread} == {"ScheduleAnyway"}


def test_scaling_in_is_slow_and_out_is_fast() -> None:
    for one in rendered():
        for obj in one.of("ScaledObject"):
            behavior = obj["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
            down, up = behavior["scaleDown"], behavior["scaleUp"]
            assert down["stabilizationWindowSeconds"] >= 300
            assert down["policies"][0]["value"] == 1
            assert up["stabilizationWindowSeconds"] <= 60
            if any(trigger["type"] != "cpu" for trigger in obj["spec"]["triggers"]):
                assert obj["spec"]["fallback"]["replicas"] >= 1
            assert obj["spec"]["minReplicaCount"] >= 1


def test_a_restore_never_starts_by_itself_and_reads_what_the_backup_wrote() -> None:
    for one in rendered():
        backup, restore = one.get("CronJob", "backup"), one.get("CronJob", "restore")
        assert (backup is None) is (restore is None), one.name
        if backup and restore:
            assert restore["spec"]["suspend"] is True
            assert restore["spec"]["jobTemplate"]["spec"]["backoffLimit"] == 0
            saving, reading = (
                each["spec"]["jobTemplate"]["spec"]["template"]["spec"]
                for each in (backup, restore)
            )
            assert saving["containers"][0]["image"] == reading["containers"][0]["image"]
            claims = [
                [v["persistentVolumeClaim"] for v in spec["volumes"] if v["name"] == "backups"]
                for spec in (saving, reading)
            ]
            assert claims[0] == claims[1] != []
            if "nats-secure" in one.name:
                creds = next(v for v in reading["volumes"] if v["name"] == "nats-creds")
                assert creds["secret"]["secretName"] == "nats-provision"


def test_a_pool_has_another_engine_while_one_is_replaced() -> None:
    # Work does not wait for an engine: docs/operations.md, No engine.
    for one in rendered():
        if one.name.startswith("dev"):
            continue  # a laptop
        scaled = {obj["metadata"]["name"]: obj["spec"] for obj in one.of("ScaledObject")}
        for pool in ("large", "small"):
            engine = one.get("Deployment", f"engine-{pool}")
            if engine is None:
                continue  # beside the workers
            spec = scaled.get(f"engine-{pool}")
            fewest = spec["minReplicaCount"] if spec else engine["spec"]["replicas"]
            assert fewest >= 2, f"{one.name}: {pool}"
            if spec:
                assert spec["fallback"]["replicas"] == fewest


def test_a_gateway_that_scales_by_cpu_asks_for_enough_of_it() -> None:
    for _, _, _, container in each_container():
        if container["name"] == "gateway":
            assert container["resources"]["requests"]["cpu"] == "500m"


def test_the_cluster_gives_the_set_up_job_more_time_than_it_gives_itself() -> None:
    limit_s = services()["provision"].model_fields["provision_timeout_s"].default
    for one in rendered():
        job = one.get("Job", "provision")
        assert job
        # With room for attempts before.
        assert job["spec"]["activeDeadlineSeconds"] > 2 * limit_s
        assert job["spec"]["template"]["spec"]["restartPolicy"] == "OnFailure"


def test_gpu_engines_are_found_by_their_patches() -> None:
    # A patch whose target matches nothing is silently ignored by kustomize.
    for gpu in (one for one in rendered() if one.name.startswith("gpu")):
        for name in ("engine-large", "engine-small"):
            engine = gpu.get("Deployment", name)
            assert engine
            assert engine["spec"]["template"]["spec"]["priorityClassName"] == "skelgraph-serving"
    dev = next(one for one in rendered() if one.name == "dev")
    for name in ("engine-large", "engine-small"):
        engine = dev.get("Deployment", name)
        assert engine
        assert "llama.cpp" in engine["spec"]["template"]["spec"]["containers"][0]["image"]
        assert "tolerations" not in engine["spec"]["template"]["spec"]


def test_a_component_leaves_no_trace_of_what_it_replaces() -> None:
    for one in rendered():
        parts = one.name.split("+")[1:]
        images = {
            c["image"] for _, t in workloads(one) for c in containers(t) if c["name"] == "engine"
        }
        if "vllm" in parts:
            assert all("vllm" in image for image in images)
        if "sidecar" in parts:
            assert not one.get("Deployment", "engine-large")
            worker = one.get("Deployment", "worker-large")
            assert worker
            names = [c["name"] for c in worker["spec"]["template"]["spec"]["initContainers"]]
            assert names == ["engine"]


def test_models_in_a_cache_are_on_their_pools_volume_and_nowhere_else() -> None:
    for one in rendered():
        cached = "model-cache" in one.name or one.name.startswith("gpu")
        for pool in ("large", "small"):
            engine = one.get("Deployment", f"engine-{pool}")
            if engine:
                spec = engine["spec"]["template"]["spec"]
                volume = next(each for each in spec["volumes"] if each["name"] == "models")
                claim = {"persistentVolumeClaim": {"claimName": f"models-{pool}"}}
                size = "2Gi" if one.name.startswith("dev") else "80Gi"
                wanted = claim if cached else {"emptyDir": {"sizeLimit": size}}
                assert volume == {"name": "models"} | wanted, f"{one.name}: {pool}"
                assert ("initContainers" in spec) is cached


def test_nats_keeps_three_copies_on_three_nodes() -> None:
    chart = values("values")
    copies = chart["config"]["cluster"]["replicas"]
    streams = (DEPLOY / "base" / "streams.env").read_text()
    assert f"SKELGRAPH_REPLICAS={copies}" in streams
    spread = chart["podTemplate"]["topologySpreadConstraints"]["kubernetes.io/hostname"]
    assert spread["whenUnsatisfiable"] == "DoNotSchedule"
    assert chart["podDisruptionBudget"]["enabled"]
    assert chart["config"]["jetstream"]["merge"]["sync_interval"] == '<< "100ms" >>'


def test_nats_has_room_for_all_streams() -> None:
    said = (DEPLOY / "base" / "streams.env").read_text()
    limits = dict(re.findall(r"^(SKELGRAPH_\w+)=(\d+)$", said, re.MULTILINE))
    queues = 3 * int(limits.get("SKELGRAPH_QUEUE_MAX_BYTES", 256 * 1024**2))
    needs = int(limits["SKELGRAPH_EVENTS_MAX_BYTES"]) + queues
    size = values("values")["config"]["jetstream"]["fileStore"]["pvc"]["size"]
    assert int(size.removesuffix("Gi")) * 1024**3 >= 1.5 * needs


def test_nats_takes_the_largest_message() -> None:
    told = as_config(values("values")["config"]["merge"]["max_payload"])
    in_dev = f"max_payload: {told}" in (DEPLOY / "overlays" / "dev" / "nats.conf").read_text()
    assert in_dev
    assert told.endswith("MB")  # which is MiB to nats-server
    # The largest of the streams, and as much again for headers and JetStream's own.
    for one in rendered():
        streams = next(obj for obj in one.of("ConfigMap") if "streams" in obj["metadata"]["name"])
        limits = StreamLimits.model_validate(
            {key.removeprefix(ENV_PREFIX).lower(): value for key, value in streams["data"].items()}
        )
        assert int(told.removesuffix("MB")) * 1024**2 > limits.max_message_bytes
