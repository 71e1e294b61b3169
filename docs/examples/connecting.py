"""Connects as the environment says: with credentials and TLS where it names some."""

import asyncio
import os
import secrets
import ssl
import sys
from collections.abc import Coroutine

import nats
import nats.errors
from nats.aio.client import Client


async def connect() -> Client:
    """Return a connection."""
    env, tls = os.environ.get, None
    if ca := env("SKELGRAPH_NATS_CA"):
        tls = ssl.create_default_context(cafile=ca)
        if certificate := env("SKELGRAPH_NATS_CERT"):
            tls.load_cert_chain(certificate, env("SKELGRAPH_NATS_KEY"))
    url = env("SKELGRAPH_NATS_URL", "nats://127.0.0.1:4222")
    return await nats.connect(url, user_credentials=env("SKELGRAPH_NATS_CREDS"), tls=tls)


def new_id() -> str:
    """Return a fresh request id; a tenant's begin with `@` and its name: `@acme.`"""
    return os.environ.get("SKELGRAPH_ID_PREFIX", "") + secrets.token_hex(8)


def run(example: Coroutine[object, object, None]) -> None:
    """Run an example; what its user can mend ends it with a line."""
    try:
        asyncio.run(example)
        sys.stdout.flush()
    except nats.errors.NoRespondersError:
        sys.exit("nobody answers there: no assembler runs")
    except BrokenPipeError:  # whoever read what we print has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
