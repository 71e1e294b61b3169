"""Prints what is stored of a request: `python replay.py REQUEST [AFTER]`."""

import json
import sys

import nats.errors
from connecting import connect, run
from nats.js.api import ConsumerConfig, DeliverPolicy


async def replay(request: str, after: int) -> None:
    """Print the facts of `request` that stand after position `after`; 0 is from the first."""
    connection = await connect()
    since = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=after + 1)
    facts = await connection.jetstream().subscribe(
        f"skelgraph.v1.event.*.{request}.>", ordered_consumer=True, config=since
    )
    pending = 1
    while pending:
        try:
            message = await facts.next_msg(timeout=5)
        except nats.errors.TimeoutError:
            raise SystemExit(f"nothing is stored of {request} after {after}") from None
        stored = message.metadata
        print(stored.sequence.stream, json.loads(message.data)["type"], stored.timestamp)
        pending = stored.num_pending
    await connection.close()


if __name__ == "__main__":
    run(replay(sys.argv[1], int(sys.argv[2]) if sys.argv[2:] else 0))
