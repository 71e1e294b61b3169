"""What NATS's client and asyncio say is passed on where it helps, and nothing more."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

from services.runtime import logs
from services.runtime.pull import reason_in


@pytest.fixture
def configured() -> Iterator[None]:
    """Logging as a process has it."""
    logs.configure("info", "json")
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("configured")
def test_the_end_of_a_tls_connection_is_no_warning(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    asyncio_log = logging.getLogger("asyncio")
    asyncio_log.warning("returning true from eof_received() has no effect when using ssl")
    asyncio_log.warning("Task was destroyed but it is pending!")
    assert capsys.readouterr().err == "WARNING:asyncio:Task was destroyed but it is pending!\n"


@pytest.mark.parametrize(
    ("description", "reason"),
    [
        ("Consumer Deleted", "Consumer Deleted"),
        (
            "\nNats-Subject: $JS.API.CONSUMER.MSG.NEXT.EVENTS.assembler-3",
            "nobody answers",
        ),
        ("No Responders\r\nNats-Subject: x", "No Responders"),
        ("", "nobody answers"),
    ],
)
def test_a_refused_pull_names_its_reason_and_no_header(description: str, reason: str) -> None:
    assert reason_in(description) == reason
