"""Asks a question over NATS with nothing but nats-py: `python docs/ask.py QUESTION`."""

import asyncio
import json
import os
import secrets
import sys

import nats


async def ask(question: str) -> str:
    """Submit a request, follow its facts, and return the answer."""
    connection = await nats.connect(os.environ.get("SKELGRAPH_NATS_URL", "nats://127.0.0.1:4222"))
    stream, request = connection.jetstream(), secrets.token_hex(8)
    body = json.dumps({"question": question, "mode": "auto"}).encode()
    await stream.publish(f"skelgraph.v1.request.{request}", body)
    facts = await stream.subscribe(f"skelgraph.v1.event.*.{request}.>", ordered_consumer=True)
    while True:
        fact = json.loads((await facts.next_msg(timeout=600)).data)
        print(fact["type"], file=sys.stderr)
        if fact["type"] in ("AnswerAssembled", "RequestFailed"):
            await connection.close()
            answer: str = fact["text"] if "text" in fact else fact["error"]["message"]
            return answer


if __name__ == "__main__":
    print(asyncio.run(ask(sys.argv[1])))
