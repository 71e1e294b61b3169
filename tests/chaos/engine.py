"""A scripted engine as a process that can be told to misbehave while it runs.

`POST /control {"mode": …, "token_s": …}` says how calls that begin from now on go;
`GET /status` tells what is open. Every call leaves two lines in a log, at its beginning and
at its end, with who called (each service has a key of its own for that).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from random import Random
from typing import IO, Any, Final

import uvloop

from tests.chaos import texts
from tests.chaos.options import TOKEN_S
from tests.scripted_engine import ScriptedEngine
from tests.scripted_steps import Begin, Call, Cut, Fail, Finish, Garbage, KeepAlive, Say, Step, Wait

Json = dict[str, Any]

MODES: Final = ("normal", "slow", "hang", "hang_mid", "busy", "error", "garbage", "cut")
_FOR_EVER_S: Final = 3600.0


class ChaosEngine(ScriptedEngine):
    """Writes the plans and texts of `tests.chaos.texts`, as well as its mode lets it.

    Args:
        name: stands in calls.
        port: where to listen.
        log: where the calls are told.
        token_s: pace while all is normal.
    """

    def __init__(self, name: str, port: int, log: IO[bytes], token_s: float) -> None:
        super().__init__(self._steps, port=port)
        self.mode = "normal"
        self.token_s = token_s
        self._name = f"{name}.{int(time.time() * 1000):x}"
        self._numbers = itertools.count(1)
        self._log = log

    async def _answer(
        self,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        if path in {"/control", "/status"}:
            reply = json.dumps(self._controlled(body)).encode()
            head = (
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            )
            writer.write(head % len(reply) + reply)
            await writer.drain()
        elif path == "/v1/chat/completions":
            who = headers.get("authorization", "").removeprefix("Bearer ")
            await self._logged(who, path, headers, body, reader, writer)
        else:
            await super()._answer(path, headers, body, reader, writer)

    def _controlled(self, body: bytes) -> Json:
        order = json.loads(body) if body else {}
        self.mode = order.get("mode", self.mode)
        self.token_s = order.get("token_s", self.token_s)
        self.calls = [call for call in self.calls if not call.over.is_set()]
        return {"mode": self.mode, "open_streams": self.open_streams, "calls": len(self.calls)}

    async def _logged(
        self,
        who: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        parsed = json.loads(body)
        asked = texts.asked_of(parsed)
        name = f"{self._name}.{next(self._numbers)}"
        told = {"call": name, "request": asked.request, "node": asked.node, "who": who}
        parsed["call"] = name
        parsed["mode"] = self.mode
        self._tell(told | {"began": time.time(), "mode": self.mode})
        try:
            await super()._answer(path, headers, json.dumps(parsed).encode(), reader, writer)
        finally:
            self._tell(told | {"over": time.time()} | self._forget(name))

    def _forget(self, name: str) -> Json:
        call = next(call for call in self.calls if call.body["call"] == name)
        self.calls.remove(call)
        return {"left": call.left.is_set(), "said": call.said}

    def _tell(self, line: Json) -> None:
        self._log.write(json.dumps(line).encode() + b"\n")

    async def _steps(self, body: Json) -> AsyncIterator[Step]:
        asked = texts.asked_of(body)
        text = _reply(asked, body["call"])
        rng = Random(body["call"])
        mode = body["mode"]
        for step in _refusals(mode, rng):
            yield step
        if mode in {"busy", "error"}:
            return
        if mode == "hang":
            yield KeepAlive()
            yield Wait(_FOR_EVER_S)
        spoilt_after = rng.randint(0, 12) if mode in {"hang_mid", "garbage", "cut"} else None
        for number, token in enumerate(texts.tokens_of(text)):
            if number == spoilt_after:
                for step in _spoilt(mode, rng):
                    yield step
                return
            yield Wait(self.token_s)
            yield Say(token)
        yield Finish()


def _reply(asked: texts.Asked, call: str) -> str:
    if asked.sentence:
        return texts.joint_text(asked.sentence)
    if asked.node == texts.PLAN:
        return texts.plan_text(asked)
    return texts.node_text(asked.request, asked.node, call, asked.after)


def _refusals(mode: str, rng: Random) -> list[Step]:
    if mode == "busy":
        return [Fail(429, b'{"error":"Model is overloaded","error_type":"overloaded"}')]
    if mode == "error":
        return [Fail(500, b'{"error":"CUDA error"}', chunked=rng.random() < 0.5)]
    return []


def _spoilt(mode: str, rng: Random) -> list[Step]:
    if mode == "hang_mid":
        return [Begin(), Wait(_FOR_EVER_S)]
    if mode == "cut":
        half = b'data: {"object":"chat.completion.chunk","choices":[{"delta":{"content":" hal'
        return [Garbage(half), Cut()]
    garbage = rng.choice(
        (
            b"data: {not json\n\n",
            b"\x00\xff\xfe\n\n",
            b'data: {"choices": 7}\n\n',
            b"data: [DONE]\n\n",
        )
    )
    return [Garbage(garbage)]


async def _serve(name: str, port: int, log_path: Path, token_s: float) -> None:
    with log_path.open("ab", buffering=0) as log:
        async with ChaosEngine(name, port, log, token_s):
            await asyncio.Event().wait()


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description="A scripted engine for the chaos harness.")
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--token-s", type=float, default=TOKEN_S)
    args = parser.parse_args()
    uvloop.run(_serve(args.name, args.port, args.log, args.token_s))


__all__ = ["MODES", "Call", "ChaosEngine"]

if __name__ == "__main__":
    main()
