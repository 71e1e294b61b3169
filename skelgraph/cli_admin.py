"""The commands for whoever keeps the services running."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Annotated

import orjson
import typer

from services.runtime.streams import StreamLimits
from skelgraph import commands, key_commands, model_commands
from skelgraph.app import EXIT_CODES, app, run
from skelgraph.options import AsJson, NatsCreds, NatsUrl, ProgressOption, where

models_app = typer.Typer(no_args_is_help=True, help="List or download the models of the table.")
app.add_typer(models_app, name="models")
keys_app = typer.Typer(no_args_is_help=True, help="Make API keys for the gateway.")
app.add_typer(keys_app, name="keys")


@app.command(epilog=EXIT_CODES)
def status(
    as_json: AsJson = False,
    nats_url: NatsUrl = None,
    nats_creds: NatsCreds = None,
) -> None:
    """Show what runs and what waits: streams, queues, services, engines."""
    run(lambda: commands.show_status(where(nats_url, nats_creds, "quiet"), as_json=as_json))


@app.command(epilog=EXIT_CODES)
def provision(
    nats_url: NatsUrl = None,
    nats_creds: NatsCreds = None,
    replicas: Annotated[
        int, typer.Option(min=1, max=5, envvar="SKELGRAPH_REPLICAS", help="Copies of each stream.")
    ] = 1,
    partitions: Annotated[
        int,
        typer.Option(
            min=1,
            max=256,
            envvar="SKELGRAPH_PARTITIONS",
            help="Partitions of the event log: the same in all services.",
        ),
    ] = 8,
    ack_wait: Annotated[
        float,
        typer.Option(
            min=0.5,
            envvar="SKELGRAPH_ACK_WAIT_S",
            help="Seconds after which a silent worker's node is given to another.",
        ),
    ] = 10,
) -> None:
    """Make the streams and consumers on a NATS server, or bring them up to date.

    [bold]skelgraph provision --nats-url nats://nats.example:4222 --replicas 3[/]
    """
    limits = StreamLimits(replicas=replicas, partitions=partitions, ack_wait_s=ack_wait)
    run(lambda: commands.provision(where(nats_url, nats_creds, "plain"), limits))


@models_app.command("list")
def list_models() -> None:
    """List the models of the table, and which of them are here."""
    model_commands.print_models()


@models_app.command("download")
def download_models(
    names: Annotated[list[str], typer.Argument(help="Names of the table.")],
    progress: ProgressOption = "auto",
) -> None:
    """Download models, so that a later start needs no network."""
    run(lambda: model_commands.download(names, progress))


@keys_app.command("new")
def new_key(
    owner: Annotated[str, typer.Argument(help="Whose requests are made with it.")],
    file: Annotated[
        Path | None, typer.Option(help="Add it to this keys file (SKELGRAPH_KEYS_FILE).")
    ] = None,
    max_in_flight: Annotated[
        int | None, typer.Option(min=1, help="Most requests of this owner at once.")
    ] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Most tokens of this owner in a minute.")
    ] = None,
) -> None:
    """Make an API key for the gateway; it is shown once, files hold its digest only.

    [bold]skelgraph keys new alice --file keys.toml --max-in-flight 8[/]
    """
    limits = {"max_in_flight": max_in_flight, "tokens_per_minute": tokens_per_minute}
    run(lambda: key_commands.new(owner, file, limits))


@app.command()
def version(as_json: AsJson = False) -> None:
    """Print the version."""
    try:
        said = version_of("skelgraph")
    except PackageNotFoundError:
        said = "of a source tree that is not installed"
    print(orjson.dumps({"version": said}).decode() if as_json else f"skelgraph {said}")
