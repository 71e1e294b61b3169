"""Hypothesis strategies for messages, derived from the models themselves."""

from __future__ import annotations

import types
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import annotated_types as at
from hypothesis import settings
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic.fields import FieldInfo

M = TypeVar("M", bound=BaseModel)

#: For laws that are checked on each kind of message.
FEW = settings(max_examples=15)

#: JSON's numbers are safe up to here.
MAX_INT = 2**53


def built(kind: type[M]) -> st.SearchStrategy[M]:
    """Return a strategy for valid messages of `kind`."""
    fields = {
        name: _values(field.annotation, field.metadata) for name, field in kind.model_fields.items()
    }
    return st.builds(kind, **fields)


def built_one_of(union: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for the messages of a tagged union."""
    return st.one_of([built(kind) for kind in get_args(get_args(union)[0])])


def _values(annotation: Any, metadata: Sequence[Any] = ()) -> st.SearchStrategy[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *marks = get_args(annotation)
        return _values(inner, [*metadata, *_flat(marks)])
    if origin in (Union, types.UnionType):
        return st.one_of([_values(choice, metadata) for choice in get_args(annotation)])
    if origin is Literal:
        return st.sampled_from(get_args(annotation))
    if origin is tuple:
        return st.lists(_values(get_args(annotation)[0]), max_size=3).map(tuple)
    return _simple(annotation, metadata)


def _simple(kind: Any, metadata: Sequence[Any]) -> st.SearchStrategy[Any]:
    if kind is type(None):
        return st.none()
    if issubclass(kind, BaseModel):
        return built(kind)
    if issubclass(kind, StrEnum):
        return st.sampled_from(kind)
    if kind is bool:
        return st.booleans()
    if kind is str:
        return _text(metadata)
    return _number(kind, metadata)


def _number(kind: Any, metadata: Sequence[Any]) -> st.SearchStrategy[Any]:
    low: Any = next((m.ge for m in metadata if isinstance(m, at.Ge)), None)
    above: Any = next((m.gt for m in metadata if isinstance(m, at.Gt)), None)
    high: Any = next((m.le for m in metadata if isinstance(m, at.Le)), None)
    if kind is int:
        return st.integers(-MAX_INT if low is None else low, MAX_INT if high is None else high)
    return st.floats(
        low if above is None else above,
        high,
        exclude_min=above is not None,
        allow_nan=False,
        allow_infinity=False,
    )


def _text(metadata: Sequence[Any]) -> st.SearchStrategy[str]:
    pattern = next((m.pattern for m in metadata if hasattr(m, "pattern")), None)
    if pattern and pattern.startswith("^"):
        return st.from_regex(pattern, fullmatch=True)
    text = st.text(st.characters(codec="utf-8"), max_size=20)
    return text.map(lambda drawn: f"{drawn}?") if pattern else text


def _flat(marks: Sequence[Any]) -> list[Any]:
    return [
        inner
        for mark in marks
        for inner in (mark.metadata if isinstance(mark, FieldInfo) else [mark])
    ]
