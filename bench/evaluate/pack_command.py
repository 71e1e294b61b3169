"""`pack`: what a simulation needs of recorded runs, without questions and answers."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer

from bench.evaluate.app import app
from bench.evaluate.judge_commands import Folders, Questions
from bench.evaluate.records import read_folders
from bench.evaluate.replay import Count, replays
from bench.questions import err, read_questions
from proto.errors import InvalidRequest
from services.runtime.urls import base_url
from skelgraph.app import run


@app.command()
def pack(
    folders: Folders,
    questions: Questions,
    tokenizer_url: Annotated[
        str, typer.Option(help="a llama.cpp server or TGI with the large model: it counts tokens")
    ],
    into: Annotated[Path, typer.Option(help="write here")],
) -> None:
    """Write plans and lengths of recorded runs for `simulate`: no questions and no answers.

    Methods recorded with --plans-only take their lengths from `sgd`, or from `direct` where the
    gate said so.
    """

    async def command() -> int:
        asked = {one.id: one.text for one in read_questions(questions)}
        with httpx2.Client(trust_env=False, timeout=600) as http:
            made = replays(read_folders(folders), asked, counting(http, tokenizer_url))
        into.write_text("".join(f"{one.model_dump_json()}\n" for one in made))
        err.print(f"{len(made)} replays in {into}", markup=False)
        return 0

    run(command)


def counting(http: httpx2.Client, url: str) -> Count:
    """Return what counts the tokens of a text by an engine's own tokeniser."""
    address = f"{base_url(url)}/tokenize"

    @lru_cache(maxsize=4096)
    def count(text: str) -> int:
        # llama.cpp reads `content`, TGI `inputs`; neither minds the other's field.
        try:
            reply = http.post(address, json={"content": text, "inputs": text})
            reply.raise_for_status()
            read: Any = reply.json()
        except (httpx2.HTTPError, ValueError) as error:
            raise InvalidRequest(f"{address}: {error!r}", field="tokenizer-url") from None
        tokens = read.get("tokens") if isinstance(read, dict) else read
        if not isinstance(tokens, list):
            raise InvalidRequest(f"{address} counts no tokens", field="tokenizer-url")
        return len(tokens)

    return count
