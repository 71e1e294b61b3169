"""`pack`: what a simulation needs of recorded runs, without questions and answers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer

from bench.evaluate.app import app
from bench.evaluate.judge_commands import Folders, Questions
from bench.evaluate.packing import Count, replays, replays_of_plans
from bench.evaluate.records import read_folders, refuse_changed
from bench.plan_figures import PlanText
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
    plans: Annotated[
        list[Path] | None,
        typer.Option(help="plans that `bench.plans --record` kept, for methods not recorded"),
    ] = None,
) -> None:
    """Write plans and lengths of recorded runs for `simulate`: no questions and no answers.

    Methods recorded with --plans-only take their lengths from `sgd`, or from `direct` where the
    gate said so.
    """

    async def command() -> int:
        found, records = read_questions(questions), read_folders(folders)
        refuse_changed(records, found)
        asked = {one.id: one.told for one in found}
        with httpx2.Client(trust_env=False, timeout=600) as http:
            count = counting(http, tokenizer_url)
            made = replays(records, asked, count)
            known = {(one.question, one.method) for one in made}
            more = replays_of_plans(read_plans(plans or ()), records, asked, count)
            made += [one for one in more if (one.question, one.method) not in known]
        into.write_text("".join(f"{one.model_dump_json()}\n" for one in made))
        err.print(f"{len(made)} replays in {into}", markup=False)
        return 0

    run(command)


def read_plans(paths: Iterable[Path]) -> list[PlanText]:
    """Return the constrained plans in files of `bench.plans --record`.

    Raises:
        InvalidRequest: a line is none; names it.
    """
    found = []
    for path in paths:
        for number, line in enumerate(path.read_text("utf-8").split("\n"), start=1):
            if not line.strip():
                continue
            try:
                found.append(PlanText(**json.loads(line)))
            except (TypeError, ValueError) as error:
                raise InvalidRequest(f"{path}, line {number}: {error}", field="plans") from None
    return [plan for plan in found if plan.constrained]


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
