"""Messages as NATS's client protocol has them. Pure.

nats-py checks and encodes each header of each message anew, which took a third of what a publish
costs (ADR 0024). Ours are few, and known.
"""

from __future__ import annotations

from collections.abc import Mapping

_HEADER_LINE = "NATS/1.0\r\n"


def frame(subject: str, data: bytes, reply: str, headers: Mapping[str, str] | None) -> bytes:
    """Return the bytes that publish `data`.

    Args:
        subject: where to; of our own making, without white space.
        data: the body.
        reply: where answers are to go; empty for nowhere.
        headers: a line each.

    Raises:
        ValueError: subject, reply or a header would break out of its line.
    """
    if not headers:
        return b"PUB %b%d\r\n%b\r\n" % (_address(subject, reply), len(data), data)
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        raise ValueError(f"a header of {subject!r} has more than one line")
    head = f"{_HEADER_LINE}{lines}\r\n".encode()
    size = len(head)
    return b"HPUB %b%d %d\r\n%b%b\r\n" % (
        _address(subject, reply),
        size,
        size + len(data),
        head,
        data,
    )


def _address(subject: str, reply: str) -> bytes:
    address = f"{subject} {reply} " if reply else f"{subject} "
    if len(address.split()) != (2 if reply else 1) or not subject:
        raise ValueError(f"no subject: {address!r}")
    return address.encode()
