"""Which engine family answers at a URL: asked once, and no caller waits for another's question."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePath
from typing import Final

import httpx2

from proto.errors import EngineRejected, EngineUnavailable
from services.runtime.dialects import DIALECTS, PLAIN, Dialect, Json

_REFUSED: Final = frozenset({401, 403})
#: What tells nothing of the family: it is to be asked again. (501: there is no such route.)
_NOT_NOW: Final = frozenset({429, *range(500, 600)} - {501})


async def probe(url: str, http: httpx2.AsyncClient) -> Dialect | None:
    """Return the dialect of the engine at `url` (without `/v1`), its model names filled in.

    None if no route of those that tell answered.

    Raises:
        EngineUnavailable: it is still loading, or is too busy to tell.
        EngineRejected: it wants another key.
        httpx2.HTTPError: it cannot be reached.
    """
    for dialect in DIALECTS.values():
        mark = dialect.mark
        if mark is None:
            continue
        told = await _get(f"{url}{mark.path}", http)
        if told is not None and mark.field in told:
            return replace(dialect, served_model=_name(told, mark.model))
    listed = await _get(f"{url}/v1/models", http)
    return None if listed is None else _from_models(listed)


def _name(told: Json, fields: tuple[str, ...]) -> str:
    named = next((str(told[field]) for field in fields if told.get(field)), "")
    # A path on the engine's disk is nobody's business; `owner/model` is a name.
    return PurePath(named).name if named.startswith("/") else named


def _from_models(listed: Json) -> Dialect:
    data = listed.get("data")
    first = data[0] if isinstance(data, list) and data else None
    if not isinstance(first, dict):
        return PLAIN
    owner = str(first.get("owned_by"))
    family = next((one for one in DIALECTS.values() if one.owned_by == owner), PLAIN)
    model = str(first.get("id") or PLAIN.model)
    return replace(family, model=model, served_model=model)


async def _get(url: str, http: httpx2.AsyncClient) -> Json | None:
    """Return the JSON object at `url`; None if there is none."""
    reply = await http.get(url)
    if reply.status_code in _REFUSED:
        raise EngineRejected(f"{url}: HTTP {reply.status_code}")
    if reply.status_code in _NOT_NOW:
        raise EngineUnavailable(f"{url}: HTTP {reply.status_code}")
    if reply.status_code != httpx2.codes.OK:
        return None
    try:
        body = reply.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None
