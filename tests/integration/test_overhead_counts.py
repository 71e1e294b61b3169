"""A node costs no more calls, messages and bytes than when somebody last looked (ADR 0024).

Counts do not depend on how busy the machine is. Where more is wanted, or less is needed now:
`python -m bench.overhead.counts` writes the baseline anew; the change goes with its reason.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import uvloop

import proto.codec
from bench.overhead.counts import BASELINE, Counts, count
from services.assembler import ledger
from services.runtime import logs
from services.runtime.publisher import DurablePublisher

#: What may come on top by chance: pulls that expire, reads that bring half a message.
SHARE = {"calls": 0.12, "messages": 0.12, "publishes": 0.12, "kilobytes": 0.06}
ELSE = 0.04


def grown(counts: Counts) -> set[str]:
    """Return what has become more than the baseline allows."""
    allowed = json.loads(BASELINE.read_text())
    assert counts.keys() == allowed.keys()
    return {
        name
        for name, value in counts.items()
        if value > allowed[name] * (1 + SHARE.get(name, ELSE)) + 0.2
    }


def test_a_node_costs_no_more_than_it_did(tmp_path: Path) -> None:
    logs.configure("info", "json")
    counts, _ = uvloop.run(count(tmp_path, 2))
    assert grown(counts) == set(), counts


@pytest.mark.long
def test_what_costs_more_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs.configure("info", "json")

    def twice(message: object) -> bytes:
        proto.codec.encode(message)  # type: ignore[arg-type]
        return proto.codec.encode(message)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "encode", twice)
        counts, _ = uvloop.run(count(tmp_path / "encodings", 2))
    assert "encodings" in grown(counts)

    publish = DurablePublisher.publish

    async def asks_first(
        self: DurablePublisher, subject: str, data: bytes, **more: object
    ) -> object:
        await self._connection.api("STREAM.NAMES", {"subject": subject})
        return await publish(self, subject, data, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(DurablePublisher, "publish", asks_first)
    counts, _ = uvloop.run(count(tmp_path / "round-trips", 2))
    assert {"messages", "publishes"} & grown(counts)
