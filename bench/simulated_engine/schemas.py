"""Writes JSON that a schema allows: the subset that engines turn into regexes; pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from random import Random
from typing import Any, Final, TypeAlias

from rstr import Rstr

Json: TypeAlias = Any
_MOST_ITEMS: Final = 3
_WORDS: Final = ("Ada", "Boston", "garden", "north", "paper", "river", "seven", "violet")
_DEPTH: Final = 12


class Unsupported(Exception):
    """The grammar is not valid, or not simulated; the text says which."""


def write_json(schema: Mapping[str, Any], random: Random) -> str:
    """Return a JSON text that `schema` allows.

    Raises:
        Unsupported: it uses what is not simulated.
    """
    return json.dumps(_Writer(schema, random).value(schema, 0), ensure_ascii=False)


class _Writer:
    def __init__(self, root: Mapping[str, Any], random: Random) -> None:
        self._root = root
        self._random = random

    def value(self, schema: object, depth: int) -> Json:
        if not isinstance(schema, Mapping) or depth > _DEPTH:
            raise Unsupported("cannot compile regex from schema: not simulated")
        if "$ref" in schema:
            return self.value(self._at(schema["$ref"]), depth + 1)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._random.choice(schema["enum"])
        for union in ("anyOf", "oneOf"):
            if union in schema:
                return self.value(self._random.choice(schema[union]), depth + 1)
        return self._typed(schema, depth)

    def _typed(self, schema: Mapping[str, Any], depth: int) -> Json:
        kind = schema.get("type", "object" if "properties" in schema else None)
        if isinstance(kind, list):
            kind = self._random.choice(kind)
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "string":
                return self._string(schema)
            case "integer":
                return self._integer(schema)
            case "number":
                return self._integer(schema) + 0.5
            case "boolean":
                return self._random.random() < 0.5
            case "null":
                return None
            case _:
                raise Unsupported(f"cannot compile regex from schema: type {kind!r}")

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        return {name: self.value(of, depth + 1) for name, of in properties.items()}

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        least = schema.get("minItems", 1)
        most = schema.get("maxItems", max(_MOST_ITEMS, least))
        count = self._random.randint(least, max(least, most))
        return [self.value(schema.get("items", {"type": "string"}), depth + 1)] * count

    def _string(self, schema: Mapping[str, Any]) -> str:
        if "pattern" in schema:
            try:
                return str(Rstr(self._random).xeger(schema["pattern"]))
            except re.error as error:
                raise Unsupported(f"cannot compile regex from schema: {error}") from None
        if "format" in schema:
            raise Unsupported(f"cannot compile regex from schema: format {schema['format']!r}")
        text = self._random.choice(_WORDS)
        least, most = schema.get("minLength", 0), schema.get("maxLength", len(text) + 99)
        while len(text) < least:
            text += " " + self._random.choice(_WORDS)
        return text[:most]

    def _integer(self, schema: Mapping[str, Any]) -> int:
        least = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
        most = schema.get("maximum", schema.get("exclusiveMaximum", least + 101) - 1)
        return self._random.randint(int(least), max(int(least), int(most)))

    def _at(self, reference: str) -> Json:
        found: Any = self._root
        for step in reference.removeprefix("#/").split("/"):
            if not isinstance(found, Mapping) or step not in found:
                raise Unsupported(f"cannot compile regex from schema: {reference!r}")
            found = found[step]
        return found
