"""Asks a question and prints the answer: `python ask.py QUESTION`."""

import json
import sys

import nats.errors
from connecting import connect, new_id, run


async def ask(question: str) -> str:
    """Return the answer to `question`."""
    connection = await connect()
    asked = {"request": new_id(), "question": question, "wait_s": 20}
    while True:
        try:
            reply = await connection.request(
                "skelgraph.v1.answer", json.dumps(asked).encode(), timeout=25
            )
        except nats.errors.TimeoutError:
            continue  # whoever was asked has died; under the same id it is the same request
        said = json.loads(reply.data)
        if said.get("type") != "AnswerPending":
            await connection.close()
            error = said.get("error") or said  # a request that failed, or one that was refused
            return said["text"] if "text" in said else f"{error['code']}: {error['message']}"


async def main() -> None:
    """Print the answer."""
    print(await ask(sys.argv[1]))


if __name__ == "__main__":
    run(main())
