"""Which backups are forgotten: by name, complete ones by number, broken ones once outlived."""

from __future__ import annotations

from pathlib import Path

import pytest

from proto.names import Stream
from services.runtime.snapshots import DATA, META, ORDER, forget_old


def make(
    folder: Path, name: str, streams: tuple[Stream, ...] = ORDER, *, whole: bool = True
) -> None:
    """Lay out a backup; one that is not whole lacks what is written last of its last stream."""
    for stream in streams:
        place = folder / name / stream.value
        place.mkdir(parents=True)
        (place / DATA).touch()
        if whole or stream is not streams[-1]:
            (place / META).touch()


def left(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def test_the_newest_complete_ones_stay(tmp_path: Path) -> None:
    for name in ("1", "2", "3"):
        make(tmp_path, name)
    assert [one.name for one in forget_old(tmp_path, 2)] == ["1"]
    assert left(tmp_path) == ["2", "3"]


@pytest.mark.parametrize("streams", [ORDER[:1], ORDER[:2], ORDER])
def test_a_broken_one_goes_when_a_newer_one_is_complete(
    tmp_path: Path, streams: tuple[Stream, ...]
) -> None:
    make(tmp_path, "1")
    make(tmp_path, "2", streams, whole=False)
    make(tmp_path, "3")
    assert [one.name for one in forget_old(tmp_path, 7)] == ["2"]
    assert left(tmp_path) == ["1", "3"]


def test_a_broken_one_takes_no_complete_ones_place(tmp_path: Path) -> None:
    make(tmp_path, "1")
    make(tmp_path, "2", ORDER[:1], whole=False)
    make(tmp_path, "3")
    forget_old(tmp_path, 2)
    assert left(tmp_path) == ["1", "3"]


def test_one_that_may_be_being_written_stays(tmp_path: Path) -> None:
    make(tmp_path, "1")
    make(tmp_path, "2", ORDER[:2], whole=False)
    assert forget_old(tmp_path, 1) == []
    assert left(tmp_path) == ["1", "2"]


def test_what_is_not_a_backup_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "0-lost+found").mkdir()
    (tmp_path / "0-notes").write_text("mine")
    make(tmp_path, "1")
    assert forget_old(tmp_path, 1) == []
    assert left(tmp_path) == ["0-lost+found", "0-notes", "1"]
