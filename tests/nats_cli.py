"""Stands in for the command line of NATS, which no registry of ours has: the same protocol for the
few commands and flags of docs/examples/cli.sh, and an error for anything else.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import ssl

import nats
import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nats")
    commands = parser.add_subparsers(dest="command", required=True)
    request = commands.add_parser("request")
    request.add_argument("subject")
    request.add_argument("body")
    request.add_argument("--timeout", default="5s")
    sub = commands.add_parser("sub")
    sub.add_argument("subject")
    sub.add_argument("--all", action="store_true", required=True)
    sub.add_argument("--count", type=int, required=True)
    for one in (request, sub):
        one.add_argument("--raw", action="store_true", required=True)
    commands.add_parser("micro").add_argument("ls", choices=["ls"])
    return parser.parse_args()


async def _request(connection: Client, asked: argparse.Namespace) -> None:
    timeout_s = float(asked.timeout.removesuffix("s"))
    reply = await connection.request(asked.subject, asked.body.encode(), timeout=timeout_s)
    print(reply.data.decode(), flush=True)


async def _sub(connection: Client, asked: argparse.Namespace) -> None:
    facts = await connection.jetstream().subscribe(asked.subject, ordered_consumer=True)
    for _ in range(asked.count):
        print((await facts.next_msg(timeout=5)).data.decode(), flush=True)


async def _services(connection: Client, _: argparse.Namespace) -> None:
    async def heard(message: Msg) -> None:
        said = orjson.loads(message.data)
        print(said["name"], said["version"], said["id"], said["description"], flush=True)

    inbox = connection.new_inbox()
    await connection.subscribe(inbox, cb=heard)
    await connection.publish("$SRV.INFO", reply=inbox)
    await asyncio.sleep(0.3)  # as the protocol has it: whoever answers until then is there


def _tls() -> ssl.SSLContext | None:
    if "NATS_CA" not in os.environ:
        return None
    context = ssl.create_default_context(cafile=os.environ["NATS_CA"])
    context.load_cert_chain(os.environ["NATS_CERT"], os.environ["NATS_KEY"])
    return context


async def _main() -> None:
    asked = _arguments()
    creds = os.environ.get("NATS_CREDS")
    connection = await nats.connect(os.environ["NATS_URL"], user_credentials=creds, tls=_tls())
    act = {"request": _request, "sub": _sub, "micro": _services}[asked.command]
    await act(connection, asked)
    await connection.close()


if __name__ == "__main__":
    asyncio.run(_main())
