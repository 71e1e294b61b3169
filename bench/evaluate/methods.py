"""The methods that are set side by side, as the fields of the request that asks for each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from proto.errors import InvalidRequest
from proto.names import Pool
from services.runtime.client import make_request


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a method uses the engines.

    Args:
        adaptive: easy nodes go to the small pool.
        needs: nodes wait for what they depend on.
        pipelined: a node starts when its line is complete, not when the plan is.
        planner: the pool that writes the plan.
    """

    adaptive: bool = True
    needs: bool = True
    pipelined: bool = True
    planner: Pool = Pool.LARGE


@dataclass(frozen=True, slots=True)
class Method:
    """A way to answer.

    Args:
        name: in records and reports.
        about: what it is, in a few words.
        fields: of the request.
        as_long_as: name of the method whose answer's length is asked for in the question.
    """

    name: str
    about: str
    fields: Mapping[str, object] = field(default_factory=dict)
    as_long_as: str | None = None

    @property
    def way(self) -> Way:
        """How it uses the engines."""
        without = self.fields.get("without", ())
        parts = set(without) if isinstance(without, Sequence) else set()
        return Way(
            adaptive=self.fields.get("adaptive") is not False and self.fields.get("mode") != "sot",
            needs="needs" not in parts,
            pipelined="pipelining" not in parts,
            planner=Pool.LARGE
            if self.fields.get("planner_pool") in (None, "large")
            else Pool.SMALL,
        )


#: Texts with spaces between their words have 4 to 8 characters a word, German ones included.
_MOST_CHARS_A_WORD: Final = 12

#: The method that all others are compared with.
BASELINE: Final = "direct"

METHODS: Final = (
    Method("direct", "the large model, plainly", {"mode": "direct"}),
    Method(
        "direct-long",
        "direct, asked for the length of the answer of sgd: control for length",
        {"mode": "direct"},
        as_long_as="sgd",
    ),
    Method("sot", "Skeleton-of-Thought: independent points, large pool", {"mode": "sot"}),
    Method(
        "sgd-na", "skeleton graph, every node in the large pool", {"mode": "sgd", "adaptive": False}
    ),
    Method("sgd", "skeleton graph, easy nodes in the small pool", {"mode": "sgd"}),
    Method("auto", "what a user gets: sgd where the gate lets it, else direct", {"mode": "auto"}),
    Method(
        "sgd-small-plan",
        "sgd, the plan by the small model",
        {"mode": "sgd", "planner_pool": "small"},
    ),
    Method(
        "sgd-draft",
        "sgd, the plan drafted by the small model and amended by the large one",
        {"mode": "sgd", "planner_pool": "draft"},
    ),
    Method(
        "auto-small-plan",
        "auto, plan and gate by the small model",
        {"mode": "auto", "planner_pool": "small"},
    ),
    Method(
        "auto-draft",
        "auto, plan and gate by the small model, amended by the large one",
        {"mode": "auto", "planner_pool": "draft"},
    ),
)


def choose(names: Iterable[str], own: Iterable[str] = ()) -> list[Method]:
    """Return methods by name, and those of `own` (`name={"mode": …}`, the request's fields).

    Raises:
        InvalidRequest: there is no such method, or a request has no such fields.
    """
    mine = [_own(text) for text in own]
    known = {method.name: method for method in (*METHODS, *mine)}
    found: dict[str, Method] = {}
    for name in [*names, *(method.name for method in mine)]:
        if name not in known:
            raise InvalidRequest(f"{name!r}; known are {', '.join(known)}", field="method")
        found[name] = known[name]
    return list(found.values())


def long_question(question: str, like: str) -> str:
    """Return `question`, asked for an answer as long as `like`.

    In words where these are told apart by spaces, else in characters: a Chinese answer has hardly
    a space.
    """
    words, characters = len(like.split()), sum(not char.isspace() for char in like)
    asked = (
        f"{words} words" if characters <= _MOST_CHARS_A_WORD * words else f"{characters} characters"
    )
    return f"{question}\n\nWrite about {asked}."


def _own(text: str) -> Method:
    name, _, fields = text.partition("=")
    try:
        read = json.loads(fields)
    except ValueError:
        read = None
    if not name.strip() or not isinstance(read, dict):
        said = f'{text!r} is not of the form name={{"mode": "sgd"}}'
        raise InvalidRequest(said, field="own-method")
    make_request(question="?", **read)
    return Method(name.strip(), f"own: {fields}", read)
