"""The schemas of Kubernetes' own kinds, as kubernetes-validate brings them along, read once each.

Its `validate` reads all definitions anew for each object, which is most of what it costs.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

import jsonschema
from kubernetes_validate import latest_version
from kubernetes_validate.utils import all_versions, major_minor, schema_contents
from referencing import Registry, Resource

from tests.k8s.rendering import Object

#: The oldest with `preStop.sleep` on by default and native sidecars, and the newest known.
VERSIONS: Final = ("1.30", latest_version())


def validate(obj: Object, version: str) -> None:
    """Raise jsonschema.ValidationError unless `obj` is valid, without a field too many."""
    _validator(version, obj["kind"], obj["apiVersion"]).validate(obj)


@cache
def _validator(
    version: str, kind: str, api_version: str
) -> jsonschema.validators.Draft202012Validator:
    # rbac.authorization.k8s.io/v1 is rbac-v1
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    schema = _content(version, f"{kind.lower()}-{group}")
    registry = Resource.from_contents(schema) @ _definitions(version)
    return jsonschema.validators.Draft202012Validator(schema, registry=registry)


@cache
def _definitions(version: str) -> Registry[Object]:
    definitions: Registry[Object] = Resource.from_contents(_content(version, "_definitions")) @ (
        Registry()
    )
    return definitions.crawl()


def _content(version: str, name: str) -> Object:
    full = next(one for one in reversed(all_versions()) if major_minor(one) == major_minor(version))
    path = f"kubernetes-json-schema/v{full}-local-strict/{name}.json"
    content: Object = schema_contents(path, version)
    return content
