"""The values of the NATS chart, and the server configuration that they stand for."""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from tests.k8s.rendering import DEPLOY, Object

#: The chart writes what stands between `<<` and `>>` into the configuration without quotes.
_RAW: Final = re.compile(r"<< (.*) >>\Z")


def values(name: str) -> Object:
    """One of the values files."""
    loaded: Object = yaml.safe_load((DEPLOY / "nats" / f"{name}.yaml").read_text())
    return loaded


def as_config(value: Any) -> str:
    """Return a value as the chart writes it into nats.conf."""
    if isinstance(value, dict):
        inner = "\n".join(f"{key}: {as_config(one)}" for key, one in value.items())
        return f"{{\n{inner}\n}}"
    if isinstance(value, list):
        return "[" + ", ".join(as_config(one) for one in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        raw = _RAW.match(value)
        return raw[1] if raw else f'"{value}"'
    return str(value)
