"""Stores a request, cancels it and prints how it ended: `python cancel.py QUESTION`."""

import json
import sys

from connecting import connect, run


async def cancel(question: str) -> None:
    """Print the id, what the cancel came to, and the end."""
    connection = await connect()

    async def call(subject: str, **body: object) -> dict[str, str]:
        reply = await connection.request(subject, json.dumps(body).encode(), timeout=30)
        if code := (reply.headers or {}).get("Nats-Service-Error-Code"):
            raise SystemExit(f"{code}: {json.loads(reply.data)['message']}")
        said: dict[str, str] = json.loads(reply.data)
        return said

    request = (await call("skelgraph.v1.submit", question=question))["request"]
    cancelled = await call(f"skelgraph.v1.cancel.{request}", reason="changed my mind")
    end = await call(f"skelgraph.v1.answer.{request}")
    print(request, cancelled["outcome"], end["type"], json.dumps(end.get("error")))
    await connection.close()


if __name__ == "__main__":
    run(cancel(sys.argv[1]))
