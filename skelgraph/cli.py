"""The commands for whoever asks, and the help that teaches them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from proto.errors import InvalidRequest
from proto.names import check_request_id
from services.runtime.client import make_request
from skelgraph import commands
from skelgraph.answering import Manner
from skelgraph.app import EXIT_CODES, Command, app, run
from skelgraph.options import (
    LARGE_MODEL,
    SMALL_MODEL,
    AsJson,
    Engines,
    Key,
    LargeModel,
    LargeUrls,
    NatsCreds,
    NatsUrl,
    ProgressOption,
    SmallModel,
    SmallUrls,
    StreamOption,
    Url,
    grain_of,
    read_question,
    where,
)

Question = Annotated[
    str,
    typer.Argument(help="The question; `-` reads it from stdin, `@FILE` from a file."),
]
RequestId = Annotated[str, typer.Argument(metavar="ID", help="The request's id.")]
_LIMITS = "Limits and sampling"


@app.command(epilog=EXIT_CODES)
def demo(
    question: Annotated[str, typer.Argument(help="Another question.")] = commands.DEMO_QUESTION,
    large_url: LargeUrls = None,
    small_url: SmallUrls = None,
    large_model: LargeModel = LARGE_MODEL,
    small_model: SmallModel = SMALL_MODEL,
    progress: ProgressOption = "auto",
) -> None:
    """Start everything, answer a sample question, stop everything.

    The first time it downloads two small models (0.6 GB).
    """

    def command() -> Command:
        place = where(
            None,
            None,
            progress,
            Engines(large_url, small_url, large_model, small_model),
        )
        return commands.demo(place, question, grain_of("auto"))

    run(command)


@app.command(epilog=EXIT_CODES)
def up(
    large_url: LargeUrls = None,
    small_url: SmallUrls = None,
    large_model: LargeModel = LARGE_MODEL,
    small_model: SmallModel = SMALL_MODEL,
    http_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port of the gateway. Default: 8080 if it is free."),
    ] = None,
    auth: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of `skelgraph auth init`: NATS lets in only whom it names, each service "
            "with its own rights.",
        ),
    ] = None,
    progress: ProgressOption = "auto",
) -> None:
    """Start everything, with a gateway (HTTP API and live page), until Ctrl-C.

    [bold]skelgraph up[/]

    [bold]skelgraph up --large-url http://10.0.0.5:8080[/]   with a TGI, vLLM … of your own
    """

    def command() -> Command:
        place = where(
            None,
            None,
            progress,
            Engines(large_url, small_url, large_model, small_model),
        )
        return commands.up(place, http_port, auth)

    run(command)


@app.command(epilog=EXIT_CODES)
def ask(
    question: Question,
    mode: Annotated[
        Literal["auto", "direct", "sot", "sgd"],
        typer.Option(
            help="direct: no skeleton; sot: parts that do not build on each other; sgd: a graph "
            "of parts; auto: the planner decides."
        ),
    ] = "auto",
    adaptive: Annotated[
        bool, typer.Option(help="Easy parts go to the small pool (mode sgd).")
    ] = True,
    planner_pool: Annotated[
        Literal["large", "small", "draft"] | None,
        typer.Option(
            help="Whose model writes the skeleton; draft: the small one's, and the large one "
            "amends it.",
            show_default="as the planner is set",
        ),
    ] = None,
    polish: Annotated[
        bool,
        typer.Option(
            "--polish", help="The small model fits each part's beginning to the text before it."
        ),
    ] = False,
    max_nodes: Annotated[
        int, typer.Option(help="Most parts of a skeleton.", rich_help_panel=_LIMITS)
    ] = 12,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            help="Most tokens of a direct answer, and of each part.", rich_help_panel=_LIMITS
        ),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0 is greedy, at most 2.", rich_help_panel=_LIMITS)
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Above 0, at most 1.", rich_help_panel=_LIMITS)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="For repeatable sampling.", rich_help_panel=_LIMITS)
    ] = None,
    deadline: Annotated[
        float, typer.Option(help="Seconds for the whole answer.", rich_help_panel=_LIMITS)
    ] = 600,
    on_failure: Annotated[
        Literal["direct", "fail"],
        typer.Option(help="When a part fails for good: answer directly, or fail."),
    ] = "direct",
    as_json: AsJson = False,
    stream: StreamOption = "auto",
    progress: ProgressOption = "auto",
    url: Url = None,
    key: Key = None,
    nats_url: NatsUrl = None,
    nats_creds: NatsCreds = None,
    large_url: LargeUrls = None,
    small_url: SmallUrls = None,
    large_model: LargeModel = LARGE_MODEL,
    small_model: SmallModel = SMALL_MODEL,
) -> None:
    """Answer a question; the answer goes to stdout, progress to stderr.

    Uses what runs (--nats-url, else the stack of [bold]skelgraph up[/]), or starts everything for
    this one question. Ctrl-C cancels the question.

    [bold]skelgraph ask "Compare renting and buying a home."[/]

    [bold]skelgraph ask - < question.txt > answer.txt[/]

    [bold]skelgraph ask @question.txt --mode sgd --json | jq .timings[/]
    """

    def command() -> Command:
        place = where(
            nats_url,
            nats_creds,
            progress,
            Engines(large_url, small_url, large_model, small_model),
            gateway=(url, key),
        )
        request = make_request(
            question=read_question(question),
            mode=mode,
            adaptive=adaptive,
            planner_pool=planner_pool,
            polish=polish,
            max_nodes=max_nodes,
            sampling={
                "max_tokens": max_tokens,
                "temperature": temperature,
                "top_p": top_p,
                "seed": seed,
            },
            deadline_s=deadline,
            on_failure=on_failure,
        )
        return commands.ask(place, request, Manner(place.progress, grain_of(stream), as_json))

    run(command)


@app.command(epilog=EXIT_CODES)
def plan(
    question: Question,
    mode: Annotated[
        Literal["auto", "direct", "sot", "sgd"],
        typer.Option(help="As for `ask`; direct and sot force the kind of skeleton."),
    ] = "auto",
    max_nodes: Annotated[int, typer.Option(help="Most parts of a skeleton.")] = 12,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="As a Mermaid flowchart.")] = False,
    as_json: AsJson = False,
    progress: ProgressOption = "auto",
    url: Url = None,
    key: Key = None,
    nats_url: NatsUrl = None,
    nats_creds: NatsCreds = None,
    large_url: LargeUrls = None,
    small_url: SmallUrls = None,
    large_model: LargeModel = LARGE_MODEL,
    small_model: SmallModel = SMALL_MODEL,
) -> None:
    """Show the skeleton of an answer without writing it.

    [bold]skelgraph plan "Compare renting and buying a home."[/]

    [bold]skelgraph plan @question.txt --mermaid > plan.mmd[/]
    """

    def command() -> Command:
        if mermaid and as_json:
            raise InvalidRequest("--mermaid and --json exclude each other")
        place = where(
            nats_url,
            nats_creds,
            progress,
            Engines(large_url, small_url, large_model, small_model),
            gateway=(url, key),
        )
        request = make_request(
            question=read_question(question), mode=mode, max_nodes=max_nodes, dry_run=True
        )
        return commands.plan(
            place, request, "mermaid" if mermaid else "json" if as_json else "tree"
        )

    run(command)


@app.command(epilog=EXIT_CODES)
def watch(
    request_id: RequestId,
    as_json: AsJson = False,
    stream: StreamOption = "auto",
    progress: ProgressOption = "auto",
    url: Url = None,
    key: Key = None,
    nats_url: NatsUrl = None,
    nats_creds: NatsCreds = None,
) -> None:
    """Follow a request that was asked elsewhere: what was, then what comes, to its answer.

    Ctrl-C stops watching; the request goes on.
    """

    def command() -> Command:
        check_request_id(request_id)
        place = where(nats_url, nats_creds, progress, gateway=(url, key))
        return commands.watch(place, request_id, Manner(place.progress, grain_of(stream), as_json))

    run(command)


@app.command(epilog=EXIT_CODES)
def cancel(
    request_id: RequestId,
    reason: Annotated[str, typer.Option(help="Stands in the request's end.")] = "",
    url: Url = None,
    key: Key = None,
    nats_url: NatsUrl = None,
    nats_creds: NatsCreds = None,
) -> None:
    """Cancel a request, wherever it stands."""

    def command() -> Command:
        check_request_id(request_id)
        place = where(nats_url, nats_creds, "quiet", gateway=(url, key))
        return commands.cancel(place, request_id, reason)

    run(command)
