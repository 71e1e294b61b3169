"""Runs a command: the first Ctrl-C lets it clean up, the second ends it at once.

Exit codes: what the command returns; 1 it failed, 2 used wrongly, 3 nothing runs or NATS
does not answer, 4 busy, 130 interrupted, 141 the reader of stdout has gone.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Coroutine
from typing import Final, NoReturn

import uvloop

from proto.errors import (
    Busy,
    InvalidRequest,
    NotProvisioned,
    QueueUnavailable,
    RequestTooLarge,
    SkelgraphError,
)
from skelgraph.answering import complain
from skelgraph.local.errors import UnknownModel
from skelgraph.outlet import discard_stdout

FAILED: Final = 1
WRONG_USE: Final = 2
UNREACHABLE: Final = 3
BUSY: Final = 4
INTERRUPTED: Final = 130
READER_GONE: Final = 141

_CODES: Final[dict[type[SkelgraphError], int]] = {
    InvalidRequest: WRONG_USE,
    RequestTooLarge: WRONG_USE,
    UnknownModel: WRONG_USE,
    QueueUnavailable: UNREACHABLE,
    NotProvisioned: UNREACHABLE,
    Busy: BUSY,
}


def run(command: Coroutine[object, object, int], *, debug: bool) -> int:
    """Run `command` and return its exit code; errors become one line on stderr.

    Args:
        command: what is to be done.
        debug: whether errors come with their traceback.
    """
    try:
        return uvloop.run(_guarded(command))
    except SkelgraphError as error:
        if debug:
            traceback.print_exc()
        complain(error)
        return exit_code(error)
    except BrokenPipeError:
        discard_stdout()
        return READER_GONE
    except Exception as error:  # noqa: BLE001 - a defect, shown as one line; --debug shows all
        if debug:
            traceback.print_exc()
        said = f"{type(error).__name__}: {error}"
        print(f"error: {said} (internal); --debug shows where", file=sys.stderr)
        return FAILED


def exit_code(error: SkelgraphError) -> int:
    """Return the exit code that goes with `error`."""
    return next((code for kind, code in _CODES.items() if isinstance(error, kind)), FAILED)


def _end_at_once() -> NoReturn:
    show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
    print(f"{show_cursor}\nended at once", file=sys.stderr, flush=True)
    os._exit(INTERRUPTED)  # children are tied to this process and end with it


async def _guarded(command: Coroutine[object, object, int]) -> int:
    work = asyncio.ensure_future(command)
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        if interrupted:
            _end_at_once()
        interrupted = True
        work.cancel()  # whoever cleans up says so, once the live picture is off the screen

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    await asyncio.wait([work])
    if interrupted and (work.cancelled() or work.exception()):
        return INTERRUPTED
    return work.result()
