"""A frame is one message: what nats-py writes for it, and nothing that breaks out of its line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.protocol import command

from services.runtime.nats_client import DirectClient
from services.runtime.wire import frame

NAMES = st.from_regex(r"[A-Za-z][A-Za-z-]{0,20}", fullmatch=True)
VALUES = st.from_regex(r"[!-~][ -~]{0,40}[!-~]", fullmatch=True)


@given(st.binary(max_size=200), st.sampled_from(["", "_INBOX.a.1"]))
def test_without_headers_it_is_what_nats_py_writes(data: bytes, reply: str) -> None:
    theirs = command.pub_cmd("a.b", reply, data)
    assert frame("a.b", data, reply, None).split() == theirs.split()


@given(st.dictionaries(NAMES, VALUES, min_size=1), st.binary(max_size=50))
def test_headers_are_read_as_they_were_written(headers: dict[str, str], data: bytes) -> None:
    sent = frame("a.b", data, "r", headers)
    line, _, rest = sent.partition(b"\r\n")
    head_size, size = map(int, line.split()[3:])
    assert (len(rest), rest[head_size:size]) == (size + 2, data)
    head = rest[:head_size].removeprefix(b"NATS/1.0\r\n")
    assert DirectClient._parse_header_lines(head) == headers


@pytest.mark.parametrize(
    ("subject", "reply", "headers"),
    [
        ("", "", None),
        ("a b", "", None),
        ("a\r\nPUB x 0", "", None),
        ("a", "b c", None),
        ("a", "", {"traceparent": "x\r\nNats-Msg-Id: y"}),
        ("a", "", {"x\n": "y"}),
    ],
)
def test_what_would_break_out_of_its_line_is_refused(
    subject: str, reply: str, headers: dict[str, str] | None
) -> None:
    with pytest.raises(ValueError, match=r"subject|header"):
        frame(subject, b"", reply, headers)
