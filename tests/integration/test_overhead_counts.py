"""A node costs no more calls, messages and bytes than when somebody last looked (ADR 0024).

Counts do not depend on how busy the machine is. Where more is wanted, or less is needed now:
`python -m bench.overhead.counts` writes the baseline anew; the change goes with its reason.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import uvloop

import proto.codec
from bench.overhead.counts import BASELINE, NARROW, WIDE, Counts, count, held_calls
from services.assembler.graph import Release
from services.assembler.ledger import Ledger
from services.runtime import logs

#: What may come on top by chance, of a node: less than one message or one encoding more.
MORE = {
    "calls": 100.0,  # a pull that expires, a read that brings half a message
    "publishes": 0.5,
    "messages": 1.5,  # pulls and their expiry are in it, by the clock
    "kilobytes": 0.6,
    "stored_kilobytes": 0.1,
    "calls_held_16": 5.0,
    "calls_held_64": 5.0,
}
ELSE = 0.5


def grown(counts: Counts) -> set[str]:
    """Return what has become more than the baseline allows."""
    allowed = json.loads(BASELINE.read_text())
    assert counts.keys() == allowed.keys()
    return {name for name, value in counts.items() if value > allowed[name] + MORE.get(name, ELSE)}


def test_a_node_costs_no_more_than_it_did(tmp_path: Path) -> None:
    logs.configure("info", "json")
    counts, _ = uvloop.run(count(tmp_path, 2))
    assert grown(counts) == set(), counts


def test_a_node_of_a_wide_graph_costs_about_what_one_of_a_narrow_graph_does() -> None:
    async def calls() -> tuple[float, float]:
        return held_calls(NARROW), held_calls(WIDE)

    narrow, wide = asyncio.run(calls())
    assert wide < 1.15 * narrow


@pytest.mark.long
def test_one_encoding_and_one_message_more_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs.configure("info", "json")
    release = Ledger.release

    def encodes_twice(self: Ledger, one: Release, headers: dict[str, str]) -> object:
        proto.codec.encode(one.work)
        return release(self, one, headers)

    def says_more(self: Ledger, one: Release, headers: dict[str, str]) -> object:
        self.connection.put("skelgraph.test.more", b"{}")
        return release(self, one, headers)

    for name, injected in {"encodings": encodes_twice, "publishes": says_more}.items():
        monkeypatch.setattr(Ledger, "release", injected)
        counts, _ = uvloop.run(count(tmp_path / name, 2))
        assert name in grown(counts)
