"""Streams to files and back, by JetStream's snapshot API, consumers included.

Source: NATS ADR-1 and the server's `jetstream_api.go` (STREAM.SNAPSHOT and STREAM.RESTORE). The
files have the names and contents that the `nats` command gives them.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import IO, Final

import nats.errors
import orjson
import structlog
from nats.aio.msg import Msg

from proto.errors import QueueUnavailable, SkelgraphError
from proto.names import Stream
from services.runtime.connection import ApiError, Connection, Json

log = structlog.get_logger()

#: A request leaves its queue when its facts are stored: saved the other way round, one that is
#: taken up between the two would be in neither. And services, which wait for the event log, begin
#: when all is restored.
ORDER: Final = (Stream.REQUESTS, Stream.NODES, Stream.DEAD, Stream.EVENTS)
DATA: Final = "stream.tar.s2"
META: Final = "backup.json"
CHUNK_BYTES: Final = 128 * 1024
#: Silence after which a transfer is given up.
PATIENCE_S: Final = 30.0


class BackupBroken(SkelgraphError):
    """The backup is not complete."""

    code = "backup_broken"


async def save(connection: Connection, folder: Path) -> dict[Stream, int]:
    """Save all streams below `folder`; return the bytes of each. A failed one leaves no folder.

    Raises:
        SkelgraphError: a stream cannot be saved; says why.
        OSError: a file cannot be written, or the folder is there already.
    """
    # One's own: what is removed after a failure was nobody else's.
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=False)
    done = False
    try:
        sizes = {stream: await _save(connection, stream, folder / stream.value) for stream in ORDER}
        done = True
    finally:
        if not done:
            # At once: after a cancellation nothing may be waited for.
            shutil.rmtree(folder, ignore_errors=True)
    return sizes


async def _save(connection: Connection, stream: Stream, place: Path) -> int:
    await asyncio.to_thread(place.mkdir)
    with (place / DATA).open("xb") as file:
        meta, size = await _Receiver(connection, file).receive(stream)
    # Last: a folder without it is not a backup.
    await asyncio.to_thread((place / META).write_bytes, orjson.dumps(meta))
    log.info("stream_saved", stream=stream.value, bytes=size)
    return size


async def restore(connection: Connection, folder: Path) -> dict[Stream, int]:
    """Make all streams from `folder`; return the messages of each. None of them may exist.

    Raises:
        BackupBroken: a file is missing; nothing was restored.
        SkelgraphError: JetStream refuses, because a stream is there, for instance.
    """
    for stream in ORDER:
        if not (folder / stream.value / META).is_file():
            raise BackupBroken(f"{folder / stream.value / META} is missing")
    return {stream: await _restore(connection, stream, folder / stream.value) for stream in ORDER}


def forget_old(folder: Path, keep: int) -> list[Path]:
    """Remove all but the last `keep` complete backups in `folder`, by name; return the removed.

    What was broken off (by a kill, say) before the newest complete one goes, too. Folders that hold
    no stream are not ours.

    Raises:
        OSError: a folder cannot be removed.
    """
    ours = [one for one in sorted(folder.iterdir()) if (one / ORDER[0].value).is_dir()]
    complete = [one for one in ours if (one / ORDER[-1].value / META).is_file()]
    kept = complete[-keep:]
    old = [one for one in ours if kept and one < kept[-1] and one not in kept]
    for one in old:
        shutil.rmtree(one)
        log.info("backup_removed", folder=str(one))
    return old


class _Receiver:
    """Takes the chunks of one snapshot.

    Args:
        connection: an open connection.
        file: where they are written.
    """

    def __init__(self, connection: Connection, file: IO[bytes]) -> None:
        self._connection = connection
        self._file = file
        self._chunks: asyncio.Queue[Msg] = asyncio.Queue()

    async def receive(self, stream: Stream) -> tuple[Json, int]:
        """Return what JetStream says of the stream, and how many bytes came."""
        inbox = self._connection.new_inbox()
        subscription = await self._connection.subscribe(inbox, self._chunks.put)
        query: Json = {
            "deliver_subject": inbox,
            "chunk_size": CHUNK_BYTES,
            "no_consumers": False,
            "jsck": True,
        }
        try:
            told = await self._connection.api(f"STREAM.SNAPSHOT.{stream}", query)
            return {"config": told["config"], "state": told["state"]}, await self._all(stream)
        except ApiError as error:
            raise SkelgraphError(f"stream {stream}: {error}") from error
        finally:
            await subscription.unsubscribe()

    async def _all(self, stream: Stream) -> int:
        total = 0
        while True:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    chunk = await self._chunks.get()
            except TimeoutError:
                raise QueueUnavailable(f"the snapshot of {stream} broke off") from None
            if not chunk.data:
                if fault := _fault(chunk):
                    raise SkelgraphError(f"stream {stream}: {fault}")
                return total
            await asyncio.to_thread(self._file.write, chunk.data)
            total += len(chunk.data)
            if chunk.reply:  # the server sends as much as has been acknowledged
                await self._connection.publish(chunk.reply)


def _fault(last: Msg) -> str:
    """What is wrong with a snapshot that has ended; nothing if it is whole."""
    headers = last.headers or {}
    status = headers.get("Status", "")
    return f"{status} {headers.get('Description', '')}" if status not in {"", "204"} else ""


async def _restore(connection: Connection, stream: Stream, place: Path) -> int:
    meta: Json = orjson.loads(await asyncio.to_thread((place / META).read_bytes))
    try:
        told = await connection.api(f"STREAM.RESTORE.{stream}", meta)
        made = await _send(connection, str(told["deliver_subject"]), place / DATA)
    except ApiError as error:
        raise SkelgraphError(f"stream {stream}: {error}") from error
    state = made.get("state")
    count = int(state["messages"]) if isinstance(state, dict) else 0
    log.info("stream_restored", stream=stream.value, messages=count)
    return count


async def _send(connection: Connection, subject: str, path: Path) -> Json:
    """Send a file in chunks, then nothing, which is its end; return what JetStream made of it."""
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            _check(await _ask(connection, subject, chunk))
    return _check(await _ask(connection, subject, b""))


async def _ask(connection: Connection, subject: str, data: bytes) -> bytes:
    try:
        reply: Msg = await connection.nc.request(subject, data, timeout=PATIENCE_S)
    except (nats.errors.Error, TimeoutError) as error:
        raise QueueUnavailable(f"the restore broke off: {error}") from error
    return reply.data


def _check(data: bytes) -> Json:
    """Return an answer of the restore; raises `ApiError` if it is a refusal."""
    told: Json = orjson.loads(data) if data else {}
    if isinstance(error := told.get("error"), dict):
        code, err_code = int(error.get("code", 0)), int(error.get("err_code", 0))
        raise ApiError(code, err_code, str(error.get("description", "")))
    return told
