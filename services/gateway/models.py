"""The model names of the OpenAI-compatible API, and the methods that they stand for. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from proto.messages import Mode
from services.gateway.errors import UnknownModel


@dataclass(frozen=True, slots=True)
class Method:
    """How an answer is made: see `SubmitRequest`."""

    mode: Mode
    adaptive: bool = True


MODELS: Final[dict[str, Method]] = {
    "skelgraph": Method("auto"),
    "skelgraph-direct": Method("direct"),
    "skelgraph-sot": Method("sot"),
    "skelgraph-sgd": Method("sgd"),
    "skelgraph-sgd-na": Method("sgd", adaptive=False),
}
#: When the names were made, in seconds since the epoch; OpenAI's form wants an instant.
CREATED: Final = 1_764_000_000


def method_of(model: str) -> Method:
    """Return the method of a model name; raises `UnknownModel`."""
    if model not in MODELS:
        raise UnknownModel(f"{model!r}; there are {', '.join(MODELS)}", field="model")
    return MODELS[model]
