"""A folder of records: what was asked of which engines, so that it is gone on with as begun."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from proto.errors import InvalidRequest
from skelgraph.local.folders import write_atomically
from skelgraph.options import Engines, where
from skelgraph.session import Where

#: Slow machines take their time: no limit of a service is to decide how an evaluation ends.
PATIENT: Final[Mapping[str, str]] = {
    "SKELGRAPH_FIRST_TOKEN_TIMEOUT_S": "3600",
    "SKELGRAPH_BETWEEN_TOKENS_TIMEOUT_S": "1800",
    "SKELGRAPH_TOTAL_TIMEOUT_S": "14400",
    "SKELGRAPH_SILENT_AFTER_S": "1800",
}
_FILE: Final = "run.json"


class Run(BaseModel):
    """What all records of a folder have in common.

    Args:
        run: token in the ids of its requests.
        common: fields of every request.
        engines: what the folder's own stack runs, or the NATS servers that were asked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    common: dict[str, object]
    engines: dict[str, object]


def open_run(folder: Path, common: dict[str, object], engines: dict[str, object]) -> Run:
    """Return the run of `folder`; begins one where there is none.

    Raises:
        InvalidRequest: it was begun otherwise; names what differs.
    """
    path = folder / _FILE
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        run = Run(run=secrets.token_hex(8), common=common, engines=engines)
        write_atomically(path, run.model_dump_json(indent=1).encode())
        return run
    run = read_run(folder)
    for field, now, then in (
        ("common", common, run.common),
        ("engines", engines, run.engines),
    ):
        if now != then:
            said = f"{folder} was begun with {then}, and now it is {now}; take another folder"
            raise InvalidRequest(said, field=field)
    return run


def read_run(folder: Path) -> Run:
    """Return the run of `folder`.

    Raises:
        InvalidRequest: it holds none.
    """
    try:
        return Run.model_validate_json((folder / _FILE).read_bytes())
    except (OSError, ValidationError):
        raise InvalidRequest(f"{folder} holds no run", field="folder") from None


def reach_of(folder: Path, nats_url: str | None, engines: Engines, slots: int) -> Where:
    """Return what to ask: the servers named, or a stack of the folder's own.

    Args:
        folder: of the run.
        nats_url: servers named; None starts a stack.
        engines: of the stack.
        slots: nodes that each of its pools decodes at once.

    Raises:
        InvalidRequest: an engine's address is none.
    """
    found = where(nats_url, None, "plain", engines)
    stack = replace(
        found.stack,
        large=replace(found.stack.large, slots=slots),
        small=replace(found.stack.small, slots=slots),
        state_dir=folder.resolve() / "stack",
        env=PATIENT,
    )
    return replace(found, stack=stack)


def told(nats_url: str | None, engines: Engines) -> dict[str, object]:
    """Return the engines as a folder remembers them."""
    if nats_url:
        return {"nats_url": nats_url}
    large, small = engines.large_urls or [], engines.small_urls or []
    return {
        "large": large or engines.large_model,
        "small": small or large or engines.small_model,
    }
