"""Every object is valid for its kind, strictly: an unknown or misspelt field is an error."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
import yaml

from tests.k8s.rendering import (
    COMPONENTS,
    DEPLOY,
    ROOT,
    Object,
    combinations,
    label_of,
    render_all,
    rendered,
)
from tests.k8s.schemas import VERSIONS, validate

CRDS: Final = ROOT.parent / "shared" / "data" / "crds"
CUSTOM: Final = {"ScaledObject", "PodMonitor", "PrometheusRule"}
#: The fields that KEDA's scalers read (pkg/scalers, 2.20): CRDs leave a trigger's metadata open.
TRIGGER_FIELDS: Final = {
    "cpu": {"value", "containerName"},
    "nats-jetstream": {
        "natsServerMonitoringEndpoint",
        "account",
        "stream",
        "consumer",
        "lagThreshold",
        "activationLagThreshold",
        "useHttps",
    },
    "prometheus": {
        "serverAddress",
        "query",
        "threshold",
        "activationThreshold",
        "ignoreNullValues",
        "timeout",
        "authModes",
        "namespace",
        "unsafeSsl",
    },
}


def distinct(*kinds: str, but: frozenset[str] = frozenset()) -> list[Object]:
    """Every object once, whatever it was rendered by."""
    seen: dict[str, Object] = {}
    for one in rendered():
        for obj in one.objects:
            if obj["kind"] not in but and (not kinds or obj["kind"] in kinds):
                seen.setdefault(json.dumps(obj, sort_keys=True), obj)
    return list(seen.values())


def strict(schema: Any) -> Any:
    """Return an OpenAPI schema that takes no field it does not name."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    preserves = schema.get("x-kubernetes-preserve-unknown-fields")
    if schema.get("type") == "object" and "properties" in schema and not preserves:
        closed.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        closed.pop("type", None)
    return closed


def crd_schema(kind: str) -> Object:
    """The strict schema of a custom kind."""
    for path in sorted(CRDS.glob("*.yaml")):
        crd = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
        if crd["spec"]["names"]["kind"] == kind:
            schema: Object = strict(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
            # apiVersion, kind and metadata are the API server's.
            schema["properties"]["metadata"] = {"type": "object"}
            return schema
    pytest.skip(f"no CRD of {kind} in {CRDS}")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_built_in_object_is_valid(version: str) -> None:
    objects = distinct(but=frozenset(CUSTOM))
    for obj in objects:
        try:
            validate(obj, version)
        except jsonschema.ValidationError as error:
            pytest.fail(f"{label_of(obj)}: {error}")
    print(f"{len(objects)} distinct objects of {len(rendered())} renders valid for {version}")


def test_the_validation_is_strict() -> None:
    wrong = deepcopy(distinct("Deployment")[0])
    wrong["spec"]["template"]["spec"]["terminationGracePeriodSecond"] = 1
    with pytest.raises(jsonschema.ValidationError):
        validate(wrong, VERSIONS[0])


def test_every_scaled_object_is_valid() -> None:
    schema = crd_schema("ScaledObject")
    objects = distinct("ScaledObject")
    assert objects
    for obj in objects:
        jsonschema.validate(obj, schema)


def test_the_validation_of_scaled_objects_is_strict() -> None:
    schema = crd_schema("ScaledObject")
    wrong = deepcopy(distinct("ScaledObject")[0])
    wrong["spec"]["poolingInterval"] = 15  # for pollingInterval
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)


def test_triggers_have_no_field_that_their_scaler_does_not_read() -> None:
    for obj in distinct("ScaledObject"):
        for trigger in obj["spec"]["triggers"]:
            fields = TRIGGER_FIELDS[trigger["type"]]
            assert set(trigger["metadata"]) <= fields, f"{label_of(obj)}: {trigger}"
            assert all(isinstance(value, str) for value in trigger["metadata"].values())


def test_pod_monitors_have_no_unknown_field() -> None:
    # The operator's CRDs are not at hand: the fields that are used here stand in its API reference.
    spec = {"selector", "podMetricsEndpoints"}
    endpoint = {"port", "path", "interval", "relabelings"}
    for obj in distinct("PodMonitor"):
        assert set(obj["spec"]) == spec
        for one in obj["spec"]["podMetricsEndpoints"]:
            assert set(one) <= endpoint
            for relabeling in one["relabelings"]:
                assert set(relabeling) == {"sourceLabels", "targetLabel"}


def test_every_component_is_tried_and_says_with_what_it_cannot_be_used() -> None:
    tried = {part for one in rendered() for part in one.name.split("+")[1:]}
    assert tried == set(COMPONENTS)
    said = (DEPLOY / "components" / "sidecar" / "kustomization.yaml").read_text()
    excluded = re.search(r"Not with ([^:]+):", said.replace("#", "").replace("\n", " "))
    assert excluded
    for name in ("autoscaling-engines", "vllm", "model-cache"):
        assert name in excluded[1]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_combination_of_components_renders_to_valid_objects(tmp_path: Path) -> None:
    every = render_all([(None, one) for one in combinations(range(len(COMPONENTS) + 1))])
    seen = {json.dumps(obj, sort_keys=True): obj for one in every for obj in one.objects}
    for obj in seen.values():
        if obj["kind"] not in CUSTOM:
            validate(obj, VERSIONS[0])
    print(f"{len(every)} combinations, {len(seen)} distinct objects")
