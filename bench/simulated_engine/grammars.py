"""Replies that match a regex or a JSON schema, where these are simple enough; pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from random import Random
from typing import Any, Protocol

from rstr import Rstr

from bench.simulated_engine.schemas import Unsupported, write_json
from bench.simulated_engine.tokens import pieces

__all__ = ["Constraint", "Unsupported", "choice", "json_schema", "regex"]


class Constraint(Protocol):
    """What a reply must match."""

    def fit(self, written: Sequence[str], random: Random) -> list[str]:
        """Return the tokens of `written` if it matches, else of another reply that does."""


class _Regex:
    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern

    def fit(self, written: Sequence[str], random: Random) -> list[str]:
        if self._pattern.fullmatch("".join(written)):
            return list(written)
        return pieces(Rstr(random).xeger(self._pattern))


class _Schema:
    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema

    def fit(self, written: Sequence[str], random: Random) -> list[str]:
        del written
        return pieces(write_json(self._schema, random))


class _Choice:
    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    def fit(self, written: Sequence[str], random: Random) -> list[str]:
        del written
        return pieces(random.choice(self._texts))


def regex(pattern: object) -> Constraint:
    """Return the constraint to a regex.

    Raises:
        Unsupported: it is none that Python takes.
    """
    if not isinstance(pattern, str):
        raise Unsupported("a regex is a string")
    try:
        return _Regex(re.compile(pattern))
    except re.error as error:
        raise Unsupported(f"{pattern!r}: {error}") from None


def json_schema(schema: object, *, needs_properties: bool) -> Constraint:
    """Return the constraint to a JSON schema.

    Raises:
        Unsupported: it is not valid, or uses what is not simulated.
    """
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except ValueError as error:
            raise Unsupported(str(error)) from None
    if not isinstance(schema, dict):
        raise Unsupported("a schema is an object")
    if needs_properties and "properties" not in schema:
        raise Unsupported("Grammar must have a 'properties' field")
    write_json(schema, Random(0))
    return _Schema(schema)


def choice(texts: Sequence[str]) -> Constraint:
    """Return the constraint to one of some texts.

    Raises:
        Unsupported: there is none.
    """
    if not texts:
        raise Unsupported("no choice")
    return _Choice(texts)
