"""`python -m services.gateway`: the service that speaks HTTP."""

from __future__ import annotations

import ipaddress
import sys
import time
from pathlib import Path
from typing import Annotated, Final, Self

import structlog
from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode

from proto.codec import MAX_REQUEST_BYTES
from proto.errors import InvalidRequest
from services.gateway.accounts import Accounts
from services.gateway.app import make_app
from services.gateway.following import Follower
from services.gateway.gateway import Gateway, Limits
from services.gateway.keys import Keys
from services.gateway.server import GatewayServer
from services.gateway.tail import Tail, read_history
from services.runtime.client import Client
from services.runtime.facts import EventLog
from services.runtime.lifecycle import Process, run
from services.runtime.publisher import DurablePublisher
from services.runtime.settings import ServiceSettings

log = structlog.get_logger()

#: How long what is left may take to say goodbye after the drain.
GOODBYE_S: Final = 1.5


class GatewaySettings(ServiceSettings):
    """Answers HTTP: the OpenAI-compatible API, Skelgraph's own, and the live page."""

    http_host: str = Field("127.0.0.1", description="address of the API and the page")
    http_port: int = Field(8080, ge=0, le=65535, description="port of the same; 0: any free port")
    keys_file: Path | None = Field(
        None, description="API keys (`skelgraph keys new`); without one only loopback is served"
    )
    no_auth: bool = Field(False, description="serve other machines too without API keys")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="web origins whose pages may call, separated by commas"
    )
    body_timeout_s: float = Field(15, gt=0, description="seconds that a body may take to come")
    head_timeout_s: float = Field(10, gt=0, description="seconds that headers may take to come")
    write_timeout_s: float = Field(
        60, gt=0, description="seconds for which a client may take nothing of its answer"
    )
    keep_alive_s: float = Field(
        15, gt=0, description="seconds of silence after which a stream says that it is there"
    )
    max_connections: int = Field(4096, ge=1, description="open connections; further ones get 503")
    max_streams: int = Field(
        256, ge=1, description="event streams that the owner of a key may have open; else 429"
    )
    history_s: float = Field(
        3600, ge=0, description="seconds that the list of recent requests reaches back at a start"
    )

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return (
            tuple(filter(None, map(str.strip, value.split(","))))
            if isinstance(value, str)
            else value
        )

    @model_validator(mode="after")
    def _authenticated(self) -> Self:
        if self.keys_file is None and not self.no_auth and not self.is_loopback:
            raise ValueError(
                f"{self.http_host} is open to other machines: name API keys (--keys-file), or say "
                "--no-auth if everybody may ask"
            )
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine is served."""
        if self.http_host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.http_host).is_loopback
        except ValueError:
            return False


async def serve(process: Process) -> None:
    """Answer until the process is to stop."""
    settings = process.settings
    if not isinstance(settings, GatewaySettings):
        raise TypeError("the gateway needs its own settings")
    keys = Keys(settings.keys_file)
    keys.load()
    process.spawn(keys.watch(), "keys file")
    gateway = await _open(process, settings, keys)
    app = make_app(
        gateway,
        own_names_only=not keys.wanted and not settings.no_auth,
        cors_origins=settings.cors_origins,
    )
    host, port = settings.http_host, settings.http_port
    server = GatewayServer(
        app,
        host,
        port,
        max_connections=settings.max_connections,
        head_timeout_s=settings.head_timeout_s,
        write_timeout_s=settings.write_timeout_s,
    )
    process.watch(server.start())
    log.info("http_serving", host=host, port=server.port)
    process.serving()
    await process.stopping.wait()
    await _stop(server, gateway, settings.drain_s)


async def _open(process: Process, settings: GatewaySettings, keys: Keys) -> Gateway:
    """Read what other gateways know, and return what answers."""
    connection, accounts = process.connection, Accounts()
    publisher = DurablePublisher(connection)
    await publisher.open()
    tail = Tail(connection, accounts)
    await read_history(connection, accounts, time.time() - settings.history_s)
    process.spawn(tail.run(), "tail of the event log")
    await tail.caught_up()
    events = EventLog(connection, publisher, settings.partitions)
    limits = Limits(
        body_bytes=MAX_REQUEST_BYTES,
        body_timeout_s=settings.body_timeout_s,
        write_timeout_s=settings.write_timeout_s,
        keep_alive_s=settings.keep_alive_s,
        streams=settings.max_streams,
    )
    follower = Follower(connection, events, tail)
    return Gateway(Client(connection, publisher), follower, accounts, keys, limits)


async def _stop(server: GatewayServer, gateway: Gateway, drain_s: float) -> None:
    """Let answers under way end; what is not done by then is asked for again elsewhere."""
    gateway.follower.close_all(resumable_only=True)
    if not await server.stop(drain_s):
        gateway.follower.close_all()
        await server.stop(GOODBYE_S)
    await server.kill()
    await gateway.settled()


def main() -> int:
    """Run the gateway; return its exit code."""
    settings = GatewaySettings.load()
    try:
        Keys(settings.keys_file).load()
    except InvalidRequest as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 2
    return run("gateway", settings, serve)


if __name__ == "__main__":
    sys.exit(main())
