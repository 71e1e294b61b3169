"""The options that several commands share, and what they mean together."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

import typer

from proto.codec import MAX_REQUEST_BYTES
from proto.errors import InvalidRequest, RequestTooLarge
from services.runtime.credentials import Access
from services.runtime.order import Grain
from skelgraph.local import catalogue
from skelgraph.local.config import PoolConfig, StackConfig
from skelgraph.outlet import grain_for
from skelgraph.progress import Kind
from skelgraph.session import Where
from skelgraph.startup import Startup

_ENGINES: Final = "Engines"
_REACH: Final = "Reaching the services"


Stream = Literal["auto", "tokens", "nodes", "whole"]


AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
NatsUrl = Annotated[
    str | None,
    typer.Option(
        "--nats-url",
        envvar="SKELGRAPH_NATS_URL",
        metavar="URLS",
        help="NATS servers, separated by commas. Default: the stack that runs on this machine.",
        rich_help_panel=_REACH,
    ),
]
NatsCreds = Annotated[
    Path | None,
    typer.Option(
        "--nats-creds",
        envvar="SKELGRAPH_NATS_CREDS",
        help="NATS credentials file; certificates by SKELGRAPH_NATS_CA, _CERT and _KEY.",
        rich_help_panel=_REACH,
    ),
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="SKELGRAPH_URL",
        metavar="URL",
        help="A gateway to ask instead, on this or another machine.",
        rich_help_panel=_REACH,
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        envvar="SKELGRAPH_API_KEY",
        help="API key for the gateway; better in the environment, where `ps` does not show it.",
        rich_help_panel=_REACH,
        show_envvar=True,
    ),
]
ProgressOption = Annotated[
    Kind,
    typer.Option(
        "--progress",
        help="On stderr: a live picture (tty), a line a transition (plain), each event as a line "
        "of JSON (json), or nothing (quiet). auto: tty at a terminal, else plain.",
    ),
]
StreamOption = Annotated[
    Stream,
    typer.Option(
        "--stream",
        help="How the answer comes to stdout: sentence by sentence (tokens), part by part "
        "(nodes), or all at the end (whole). auto: tokens at a terminal, nodes into a pipe, "
        "whole into a file.",
    ),
]
LargeUrls = Annotated[
    list[str] | None,
    typer.Option(
        "--large-url",
        metavar="URL",
        help="An engine of your own for the large pool (TGI, vLLM, SGLang, llama.cpp); repeatable.",
        rich_help_panel=_ENGINES,
    ),
]
SmallUrls = Annotated[
    list[str] | None,
    typer.Option(
        "--small-url",
        metavar="URL",
        help="The same for the small pool. Default with --large-url: those of the large pool.",
        rich_help_panel=_ENGINES,
    ),
]
LargeModel = Annotated[
    str,
    typer.Option(
        "--large-model",
        metavar="NAME|FILE",
        help="Model that plans and writes hard parts: a name of `skelgraph models list`, or a "
        "GGUF file.",
        rich_help_panel=_ENGINES,
    ),
]
SmallModel = Annotated[
    str,
    typer.Option(
        "--small-model",
        metavar="NAME|FILE",
        help="Model that writes easy parts.",
        rich_help_panel=_ENGINES,
    ),
]

LARGE_MODEL: Final = catalogue.LARGE.name
SMALL_MODEL: Final = catalogue.SMALL.name


class Engines(NamedTuple):
    """What the options for engines say."""

    large_urls: list[str] | None = None
    small_urls: list[str] | None = None
    large_model: str = LARGE_MODEL
    small_model: str = SMALL_MODEL


BUILT_IN: Final = Engines()


def where(
    nats_url: str | None,
    nats_creds: Path | None,
    progress: Kind,
    engines: Engines = BUILT_IN,
    *,
    gateway: tuple[str | None, str | None] = (None, None),
) -> Where:
    """Return what the options of reach and engines mean together.

    Args:
        nats_url: NATS servers.
        nats_creds: their credentials.
        progress: how the start of a stack is shown.
        engines: engines and models of a stack that is started.
        gateway: a gateway's address and API key.

    Raises:
        InvalidRequest: an address is none.
    """
    url, key = gateway
    if url and not url.startswith(("http://", "https://")):
        raise InvalidRequest(f"{url!r} is not an http:// or https:// address", field="url")
    stack = StackConfig()
    large = _pool(stack.large, engines.large_model, engines.large_urls, "large-url")
    small = _pool(stack.small, engines.small_model, engines.small_urls, "small-url")
    if large.urls and not small.urls and engines.small_model == SMALL_MODEL:
        Startup(progress).say(
            "note: no --small-url, so the small pool uses the large pool's engines"
        )
        small = replace(small, urls=large.urls)
    return Where(
        nats_url=nats_url,
        access=_access(nats_creds),
        stack=replace(stack, large=large, small=small),
        progress=progress,
        engines_given=engines != BUILT_IN,
        url=url,
        key=key,
    )


def _access(nats_creds: Path | None) -> Access:
    """Return what is shown to NATS; certificates are named by the environment only."""
    ca, cert, key = (os.environ.get(f"SKELGRAPH_NATS_{name}") for name in ("CA", "CERT", "KEY"))
    access = Access(str(nats_creds) if nats_creds else None, ca, cert, key)
    for path in filter(None, (access.creds, ca, cert, key)):
        if not os.access(path, os.R_OK):
            raise InvalidRequest(f"{path!r} is not a readable file", field="nats-creds")
    return access


def grain_of(stream: Stream) -> Grain:
    """Return the portions of an option; `auto` depends on what stdout is."""
    return grain_for(sys.stdout) if stream == "auto" else stream


def read_question(given: str) -> str:
    """Return the question: `-` is stdin, `@FILE` a file, all else is the question itself.

    Raises:
        RequestTooLarge: it is longer than a request may be.
        InvalidRequest: the file cannot be read, or is not UTF-8 text.
    """
    if given != "-" and not given.startswith("@"):
        return given
    try:
        data = _read_bounded(given)
    except OSError as error:
        raise InvalidRequest(f"{given[1:]}: {error.strerror}", field="question") from error
    if len(data) > MAX_REQUEST_BYTES:
        said = f"it has more than {MAX_REQUEST_BYTES} bytes, which is the limit"
        raise RequestTooLarge(said, field="question")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("it is not UTF-8 text", field="question") from None


def _read_bounded(given: str) -> bytes:
    if given == "-":
        return sys.stdin.buffer.read(MAX_REQUEST_BYTES + 1)
    with Path(given[1:]).expanduser().open("rb") as file:
        return file.read(MAX_REQUEST_BYTES + 1)


def _pool(default: PoolConfig, model: str, urls: list[str] | None, flag: str) -> PoolConfig:
    for url in urls or ():
        if not url.startswith(("http://", "https://")):
            raise InvalidRequest(f"{url!r} is not an http:// or https:// address", field=flag)
    return replace(default, model=model, urls=tuple(urls or ()))
