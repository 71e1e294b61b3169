"""CloudEvents attributes of a fact, as headers (binary mode of the NATS binding, 1.0.3-wip). Pure.

Off unless a setting asks for them: what they say stands in the fact and its subject already
(ADR 0029). Ids, types and instants are printable ASCII, so nothing needs the binding's escapes.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from proto.messages import Fact
from proto.names import PREFIX

SPECVERSION: Final = "1.0"
SOURCE: Final = "/skelgraph"


def attributes(fact: Fact, subject: str, now: float) -> dict[str, str]:
    """Return the headers that describe `fact`.

    Args:
        fact: the fact.
        subject: where it is stored; the same fact has the same id, whoever stores it.
        now: seconds since the epoch.
    """
    return {
        "ce-specversion": SPECVERSION,
        "ce-id": subject.removeprefix(f"{PREFIX}."),
        "ce-source": SOURCE,
        "ce-type": f"{PREFIX}.{fact.type}",
        "ce-subject": fact.request,
        "ce-time": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds"),
    }
