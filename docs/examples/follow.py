"""Stores a request and shows how it goes: `python follow.py QUESTION [REQUEST]`."""

import json
import secrets
import sys

import nats.errors
import nats.js.errors
from connecting import connect, new_id, run
from nats.aio.msg import Msg
from nats.js import JetStreamContext

ENDS = ("AnswerAssembled", "SkeletonDrafted", "RequestFailed")


async def submit(stream: JetStreamContext, request: str, question: str) -> None:
    """Store the request; the same once more under its id changes nothing."""
    headers = {"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"}
    body = json.dumps({"question": question, "mode": "sgd", "deadline_s": 300}).encode()
    while True:
        try:
            await stream.publish(f"skelgraph.v1.request.{request}", body, headers=headers)
        except nats.errors.TimeoutError:
            continue  # stored or not: nobody has said so
        except nats.js.errors.APIError as error:
            if "per subject" not in str(error):  # else it is queued already
                raise
        return


class Live:
    """The text of each node as its tokens come; some may be lost."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}

    async def heard(self, message: Msg) -> None:
        """Take in a preview."""
        preview = json.loads(message.data)
        node, text = preview["node"], self.texts.get(preview["node"], "")
        if preview["type"] in ("NodeStarted", "NodeReset"):
            self.texts[node] = ""  # an attempt begins or has failed: what was there is void
        elif preview["type"] == "TokensDecoded" and preview["offset"] <= len(text):
            self.texts[node] = text[: preview["offset"]] + preview["text"]


async def follow(question: str, request: str) -> None:
    """Print each fact of a request with its position, then the answer."""
    connection = await connect()
    stream, live = connection.jetstream(), Live()
    await connection.subscribe(f"skelgraph.v1.live.{request}.*", cb=live.heard)
    facts = await stream.subscribe(f"skelgraph.v1.event.*.{request}.>", ordered_consumer=True)
    await submit(stream, request, question)
    while True:
        message = await facts.next_msg(timeout=600)
        fact = json.loads(message.data)
        print(message.metadata.sequence.stream, fact["type"], fact.get("node") or "")
        if fact["type"] == "NodeDecoded":
            print(f"  live so far: {len(live.texts.get(fact['node'], ''))} characters")
        if fact["type"] in ENDS:
            print(fact.get("text") or fact.get("error"))
            break
    await connection.close()


if __name__ == "__main__":
    run(follow(sys.argv[1], sys.argv[2] if sys.argv[2:] else new_id()))
