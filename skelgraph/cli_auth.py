"""The commands for who may do what on NATS."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from skelgraph import auth_commands
from skelgraph.app import EXIT_CODES, app, run
from skelgraph.auth_commands import Target
from skelgraph.options import NatsUrl

auth_app = typer.Typer(
    no_args_is_help=True,
    help="Keys and credentials for NATS: one user a service, an account of its own a tenant.",
)
app.add_typer(auth_app, name="auth")

DEFAULT_FOLDER: Final = Path("skelgraph-auth")
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the keys.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A service, or a tenant.")]


@auth_app.command(epilog=EXIT_CODES)
def init(
    folder: Folder = DEFAULT_FOLDER,
    tls: Annotated[
        Literal["none", "server", "mutual"],
        typer.Option(
            help="server: NATS shows a certificate of a CA made here; mutual: clients show one too."
        ),
    ] = "none",
    host: Annotated[
        list[str] | None,
        typer.Option(help="Name or address by which NATS is reached, for its certificate."),
    ] = None,
) -> None:
    """Make an operator, its accounts and a user for each service.

    Each service may do on NATS what it needs and no more; a tenant (`add-tenant`) sees its own
    requests only. Files with secrets are readable by you alone. Once more completes what is
    missing, and replaces only credentials whose rights are others in this version, and the
    server's certificate if it is to be for other hosts.

    [bold]skelgraph auth init keys && skelgraph up --auth keys[/]

    [bold]skelgraph auth init keys --tls mutual --host nats --host nats.example.org[/]
    """
    run(lambda: auth_commands.init(folder, tls, host or []))


@auth_app.command(epilog=EXIT_CODES)
def add_tenant(name: Name, folder: Folder = DEFAULT_FOLDER, nats_url: NatsUrl = None) -> None:
    """Make an account for a tenant, and print where its credentials are.

    A running NATS is told at once: the stack of this machine, or the servers of --nats-url.

    [bold]skelgraph auth add-tenant acme keys[/]
    """
    run(lambda: auth_commands.add_tenant(Target(folder, nats_url), name))


@auth_app.command(epilog=EXIT_CODES)
def rotate(name: Name, folder: Folder = DEFAULT_FOLDER) -> None:
    """Renew the credentials of a service or tenant; the old ones stay valid until `revoke`.

    Services look at their file every few seconds and connect anew; nothing is lost by that.
    `server` renews the certificate that NATS shows.

    [bold]skelgraph auth rotate worker keys[/]
    """
    run(lambda: auth_commands.rotate(Target(folder, None), name))


@auth_app.command(epilog=EXIT_CODES)
def revoke(name: Name, folder: Folder = DEFAULT_FOLDER, nats_url: NatsUrl = None) -> None:
    """Void the credentials that a service or tenant had before it was rotated.

    [bold]skelgraph auth rotate worker keys && sleep 60 && skelgraph auth revoke worker keys[/]
    """
    run(lambda: auth_commands.revoke(Target(folder, nats_url), name))


@auth_app.command("list", epilog=EXIT_CODES)
def show(folder: Folder = DEFAULT_FOLDER) -> None:
    """List services and tenants, and where their credentials are."""
    run(lambda: auth_commands.show(folder))
