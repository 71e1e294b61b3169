"""Breaks a stream of text into lines of a terminal. Pure."""

from __future__ import annotations

from rich.cells import cell_len


class LineFiller:
    """Hands out each line as soon as it is full or ended.

    Args:
        width: of the terminal, in cells.

    Attributes:
        rest: the line that is not full yet.
    """

    def __init__(self, width: int) -> None:
        self._width = max(10, width)
        self.rest = ""

    def feed(self, text: str) -> list[str]:
        """Take in `text` and return the lines that are complete."""
        *whole, last = (self.rest + text.expandtabs(4)).split("\n")
        lines = [part for line in whole for part in self._wrapped(line)]
        *full, self.rest = self._wrapped(last)
        return lines + full

    def finish(self) -> list[str]:
        """Return the last line, if there is one."""
        rest, self.rest = self.rest, ""
        return [rest] if rest else []

    def _wrapped(self, line: str) -> list[str]:
        found = []
        while cell_len(line) > self._width:
            end = self._break(line)
            found.append(line[:end].rstrip())
            line = line[end:].lstrip(" ")
        return [*found, line]

    def _break(self, line: str) -> int:
        """Return where to break: behind the last space that fits, or in the middle of a word."""
        cells, fits = 0, 0
        for fits, char in enumerate(line):  # noqa: B007 - the index is the result
            cells += cell_len(char)
            if cells > self._width:
                break
        space = line.rfind(" ", 0, fits + 1)
        return space + 1 if space > 0 else max(1, fits)
