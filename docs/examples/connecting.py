"""Connects as the environment says: with credentials and TLS where it names some."""

import os
import secrets
import ssl

import nats
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
