"""What the client sends to TGI fits TGI's own OpenAPI document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest

from services.runtime.calls import ChatCall, ChatMessage, Grammar
from services.runtime.dialects import TGI
from services.runtime.engine import EngineClient
from tests.scripted_engine import Finish, Say, ScriptedEngine

Json = dict[str, Any]
DOCUMENT: Final = Path(__file__).parents[2].parent / "shared/data/tgi/openapi.json"
pytestmark = pytest.mark.skipif(not DOCUMENT.exists(), reason="TGI's OpenAPI document is not here")

MESSAGES: Final = (ChatMessage("system", "s"), ChatMessage("user", "u"))
GRAMMAR: Final = Grammar(gbnf='root ::= "a"', regex="a")
CALLS: Final = {
    "least": ChatCall(MESSAGES, max_tokens=1),
    "plan": ChatCall(MESSAGES, max_tokens=512, grammar=GRAMMAR),
    "all": ChatCall(
        (*MESSAGES, ChatMessage("assistant", "a")),
        max_tokens=7,
        temperature=0.7,
        top_p=0.9,
        seed=3,
        stop=("1", "2", "3", "4", "5"),
        grammar=GRAMMAR,
        repetition_penalty=1.1,
        priority=1,
    ),
}


def schema() -> Json:
    """The schema of a chat request, as JSON Schema, with no field but those it names."""
    document = json.loads(DOCUMENT.read_text())
    request = _plain(document["components"]["schemas"]["ChatRequest"])
    parts = _plain(document["components"])
    return {**request, "additionalProperties": False, "components": parts}


def _plain(node: Any) -> Any:
    """OpenAPI 3.0 says `nullable` where JSON Schema has a type more; nulls are not sent."""
    if isinstance(node, dict):
        return {name: _plain(part) for name, part in node.items() if name != "nullable"}
    return [_plain(part) for part in node] if isinstance(node, list) else node


def without_nulls(body: Json) -> Json:
    return {name: value for name, value in body.items() if value is not None}


@pytest.mark.parametrize("name", sorted(CALLS))
async def test_what_is_sent_fits_a_chat_request(name: str) -> None:
    async with ScriptedEngine(lambda _: [Say("a"), Finish()]) as engine:
        client = EngineClient(engine.url, dialect=TGI)
        async with client.stream(CALLS[name]) as stream:
            async for _ in stream:
                pass
        jsonschema.validate(without_nulls(dict(engine.calls[0].body)), schema())
        await client.close()


def test_the_check_can_fail() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"messages": [], "repeat_penalty": 1.1}, schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"messages": [], "max_tokens": "1"}, schema())
