"""Files of JSON lines that outlive a kill at any moment: what was added is there, or was not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from proto.errors import InvalidRequest
from skelgraph.local.folders import sync, try_lock

Line = TypeVar("Line", bound=BaseModel)


class InUse(InvalidRequest):
    """Another process writes there."""

    code = "in_use"


class JsonLines(Generic[Line]):
    """A file with one object a line, in the order in which they were added.

    Args:
        path: of the file; it need not exist.
        kind: of its lines.
    """

    def __init__(self, path: Path, kind: type[Line]) -> None:
        self.path = path
        self._kind = kind

    def read(self) -> list[Line]:
        """Return the lines; a last one that a kill has cut short is not there.

        Raises:
            InvalidRequest: a line is not one; names it.
        """
        return [self._line(number, text) for number, text in self._texts()]

    @contextmanager
    def adding(self) -> Iterator[Adder[Line]]:
        """Hold the file within the block, to add to it.

        Raises:
            InUse: another process does.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = try_lock(self.path.with_suffix(".lock"))
        if lock is None:
            raise InUse(str(self.path))
        with lock, self.path.open("ab") as file:
            file.truncate(self._whole_bytes())
            yield Adder(file)

    def _line(self, number: int, text: bytes) -> Line:
        try:
            return self._kind.model_validate_json(text)
        except ValidationError as error:
            where = f"{self.path}, line {number}"
            found = error.errors(include_url=False, include_input=False)[0]
            raise InvalidRequest(f"{where}: {found['msg']}", field=_field(found["loc"])) from None

    def _texts(self) -> Iterator[tuple[int, bytes]]:
        if self.path.exists():
            whole = self.path.read_bytes()[: self._whole_bytes()]
            for number, text in enumerate(whole.split(b"\n"), start=1):
                if text:
                    yield number, text

    def _whole_bytes(self) -> int:
        return self.path.read_bytes().rfind(b"\n") + 1 if self.path.exists() else 0


class Adder(Generic[Line]):
    """Adds lines to a file that is held.

    Args:
        file: open for appending.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def add(self, line: Line) -> None:
        """Add a line; it is on the disk when this returns."""
        self._file.write(line.model_dump_json().encode() + b"\n")
        sync(self._file)


def _field(place: tuple[int | str, ...]) -> str | None:
    return ".".join(map(str, place)) or None
