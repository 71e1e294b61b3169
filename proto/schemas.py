"""JSON Schemas, the AsyncAPI document and docs/messages.md, generated from the models.

`python -m proto.schemas` writes them; `--check` writes nothing, prints what differs and
exits with 1 if anything does. Needs PyYAML, which only developers have.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic.json_schema import GenerateJsonSchema

from proto.asyncapi import asyncapi_yaml
from proto.channels import MESSAGES, Message
from proto.codec import END, FACT, PREVIEW
from proto.messages import Sent
from proto.names import schema_urn
from proto.reference import messages_markdown

Json = dict[str, object]

ROOT: Final = Path(__file__).parent.parent
SCHEMAS: Final = Path("schemas")
#: Stands in the same folder, and is generated from the gateway (`python -m docs.generate`).
OPENAPI_NAME: Final = "openapi.yaml"
DIALECT: Final = GenerateJsonSchema.schema_dialect

#: Messages that readers tell apart by their field `type`.
_TAGGED: Final = frozenset(
    name
    for union in (FACT, END, PREVIEW)
    for name in union.json_schema()["discriminator"]["mapping"]
)


class _Untitled(GenerateJsonSchema):
    """Leaves out the titles of fields, which only repeat their names."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


def schema_of(message: Message) -> Json:
    """Return the JSON Schema of `message`, as the codec reads it.

    What services pass on is open to fields of a newer version, at any depth.
    """
    schema: Json = message.model_json_schema(schema_generator=_Untitled)
    if not issubclass(message, Sent):
        _open(schema)
    if message.__name__ in _TAGGED:
        required = schema.get("required")
        schema["required"] = ["type", *(required if isinstance(required, list) else ())]
    return {"$schema": DIALECT, "$id": schema_urn(message.__name__), **schema}


def _open(schema: Json) -> None:
    definitions = schema.get("$defs")
    for part in (schema, *(definitions.values() if isinstance(definitions, dict) else ())):
        part.pop("additionalProperties", None)


def generated() -> dict[Path, str]:
    """Return every generated file: its path in the repository, and its content."""
    schemas = {message.__name__: schema_of(message) for message in MESSAGES}
    files = {
        SCHEMAS / f"{name}.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        for name, schema in schemas.items()
    }
    files[SCHEMAS / "asyncapi.yaml"] = asyncapi_yaml()
    files[Path("docs/messages.md")] = messages_markdown(schemas)
    return files


def drift(files: Mapping[Path, str], root: Path = ROOT, *, owned: Path | None = None) -> str:
    """Return a diff from what stands under `root` to `files`; empty if there is none.

    Args:
        files: what should stand there.
        root: the repository.
        owned: a folder in which nothing else may stand.
    """
    stray = set(_standing(root, owned))
    return "".join(
        _diff(path, _read(root / path), files.get(path)) for path in sorted(files.keys() | stray)
    )


def write(files: Mapping[Path, str], root: Path = ROOT, *, owned: Path | None = None) -> None:
    """Write `files`, and remove what else stands in the folder `owned`."""
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content, encoding="utf-8")
    for path in _standing(root, owned):
        if path not in files:
            (root / path).unlink()


def _standing(root: Path, owned: Path | None) -> list[Path]:
    """Return what stands in the folder that is ours, but for what others generate there."""
    found = (root / owned).iterdir() if owned else ()
    return [path.relative_to(root) for path in found if path.name != OPENAPI_NAME]


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def _diff(path: Path, stands: str | None, wanted: str | None) -> str:
    if stands == wanted:
        return ""
    lines = difflib.unified_diff(
        (stands or "").splitlines(keepends=True),
        (wanted or "").splitlines(keepends=True),
        f"{path} (as it stands)" if stands is not None else "nothing",
        f"{path} (as generated)" if wanted is not None else "nothing",
    )
    return "".join(lines)


def run(files: Mapping[Path, str], command: str, *, owned: Path | None = None) -> int:
    """Write `files`, or with `--check` say how they differ; return the exit code."""
    parser = argparse.ArgumentParser(prog=command, description="Write the generated files.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 on a difference"
    )
    if not parser.parse_args().check:
        write(files, owned=owned)
        return 0
    difference = drift(files, owned=owned)
    if difference:
        sys.stderr.write(f"{difference}\nerror: generated files differ; run `{command}`\n")
    return 1 if difference else 0


if __name__ == "__main__":
    sys.exit(run(generated(), "python -m proto.schemas", owned=SCHEMAS))
