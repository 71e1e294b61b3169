"""From what a model writes to a node's text: a pure filter over the stream.

Law: let `shown` be all that `feed` returned, joined, and `final` what `finish` returns.
Then one of the two is a prefix of the other. `final` is shorter where the text was cut off
and is trimmed to whole sentences, longer where a code fence had to be closed or the start
was still held back; both are the same in any chunking of the stream. Previews can thus be
sent by offset as they come, and the final text replaces them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Final

from proto.messages import FinishReason, NodeSpec
from services.runtime import sentences
from services.runtime.fences import FENCE, fence_after
from services.worker.headings import Heading, heading, others

_LIST_LINE: Final = re.compile(r"^[ \t]*(?:[-*+•]|\d+[.)])[ \t]*\S[^\n]*(?=\n)", re.MULTILINE)
_TABLE: Final = re.compile(r"(?:^[ \t]*\|[^\n]*(?:\n|\Z))+", re.MULTILINE)
#: A table without a row below its head is none.
_HEAD_ROWS: Final = 2
_BARE_MARKER: Final = re.compile(r"(?:^|\n)[ \t]*(?:[-*+•]|\d+[.)])[*_]*\s*\Z")
_CHAR_OR_SPACES: Final = re.compile(r"\s+|\S")


class TextFilter:
    """Cleans one node's text while it streams.

    Drops leading whitespace and a heading at the start that only repeats the node's own
    summary; holds back trailing whitespace. A text that is nothing but its heading is kept.
    The text ends before a line that is the heading of another part: a small model goes on
    with the plan. Of the parts that this one builds on it may make headings of its own, and
    within a code block no line is a heading.

    Args:
        node: whose heading may be echoed; None where nothing but the text can come.
        skeleton: the plan's lines, for the headings of other parts.
    """

    def __init__(self, node: NodeSpec | None = None, skeleton: Sequence[str] = ()) -> None:
        self._own = heading(node.id, node.summary) if node and node.summary else None
        self._node = node
        self._skeleton = skeleton
        self._head: str | None = ""  # None once it is decided
        self._line: str | None = None  # a line that may become another part's heading
        self._last = ""  # the line that is being written, whole
        self._fence: str | None = None  # of the code block that is open
        self._over = False
        self._shown: list[str] = []
        self._held = ""

    def feed(self, piece: str) -> str:
        """Return the text that `piece`, the next of the stream, adds to the preview."""
        if self._head is not None:
            piece = self._decided(piece)
        return self._show(self._of_this_part(piece))

    def finish(self, reason: FinishReason) -> str:
        """Return the whole text, after the stream has ended for `reason`.

        It has no outer whitespace and is empty only if the model wrote nothing. An open
        code fence is closed; else a text that was cut off by its length ends with its last
        whole sentence, list line, table row or code block, if there is one.
        """
        rest = self._line or ""
        if rest and self._is_others(f"{rest}\n"):
            rest = ""
        text = ("".join(self._shown) + (self._head or "") + self._held + rest).strip()
        if marker := _open_fence(text):
            return f"{text}\n{marker}"
        return _whole_sentences(text) if reason == "length" and not self._over else text

    @property
    def is_over(self) -> bool:
        """Whether the text has ended, whatever the model goes on to write."""
        return self._over

    @cached_property
    def _others(self) -> tuple[Heading, ...]:
        """The headings of other parts; a text of one line has no use for them."""
        if self._node is None:
            return ()
        return others(self._skeleton, (self._node.id, *self._node.needs))

    def _decided(self, piece: str) -> str:
        for found in _CHAR_OR_SPACES.finditer(piece):
            self._head = ((self._head or "") + found[0]).lstrip()
            if found[0].isspace():
                continue  # decides nothing, and there may be thousands
            if not (self._own and self._own.may_begin(self._head)):
                head, self._head = self._head, None
                start = self._own.end_in(head) if self._own else 0
                return head[start:] + piece[found.end() :]
        return ""

    def _of_this_part(self, piece: str) -> str:
        """Return what of `piece` is surely not the heading of another part, nor behind it."""
        kept = ""
        for line in _lines(piece):
            if self._over:
                break
            kept += line if self._fence else self._kept(line)
            self._last += line
            if line.endswith("\n") and not self._over:
                self._fence = fence_after(self._last, self._fence)
                self._last = self._line = ""
        return kept

    def _kept(self, rest: str) -> str:
        if self._line is None:
            return rest
        self._line += rest
        if rest.isspace() and not rest.endswith("\n"):
            return ""
        if self._is_others(self._line):
            self._over, self._line = True, None
        elif rest.endswith("\n") or not self._may_be_others(self._line):
            line, self._line = self._line, None
            return line
        return ""

    def _may_be_others(self, line: str) -> bool:
        return any(heading.may_be_marked_in(line) for heading in self._others)

    def _is_others(self, line: str) -> bool:
        return any(heading.is_marked_in(line) for heading in self._others)

    def _show(self, piece: str) -> str:
        text = self._held + piece
        shown = text.rstrip()
        self._held = text[len(shown) :]
        self._shown.append(shown)
        return shown


def _lines(text: str) -> list[str]:
    """Return the lines of `text` with their newlines; only `\\n` ends one."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


# --- the end --------------------------------------------------------------------------


def _fences(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield start, end and marker of each code block; an open one ends beyond the text."""
    start = 0
    opened: str | None = None
    for line in FENCE.finditer(text):
        before, opened = opened, fence_after(line[0], opened)
        if opened and not before:
            start = line.start()
        elif before and not opened:
            yield start, line.end(), before
    if opened:
        yield start, len(text) + 1, opened


def _open_fence(text: str) -> str | None:
    return next((marker for _, end, marker in _fences(text) if end > len(text)), None)


def _whole_sentences(text: str) -> str:
    """Return `text` up to its last whole sentence, list line or code block, if there is one."""
    fences = [(start, end) for start, end, _ in _fences(text)]
    tables = [
        match.span() for match in _TABLE.finditer(text) if not _is_within(match.start(), fences)
    ]
    ends = [end for _, end in fences] + [end for table in tables for end in _rows(text, *table)]
    lines = (match.end() for match in _LIST_LINE.finditer(text))
    blocks = fences + tables
    ends += [end for end in (*sentences.ends(text), *lines) if not _is_within(end, blocks)]
    for end in sorted(ends, reverse=True):
        whole = text[:end].rstrip()  # a list line may end with a carriage return
        if not _BARE_MARKER.search(whole):
            return whole
    return text


def _is_within(place: int, blocks: Sequence[tuple[int, int]]) -> bool:
    return any(start < place <= stop for start, stop in blocks)


def _rows(text: str, start: int, stop: int) -> list[int]:
    """Return where the whole rows below the head of the table in `text[start:stop]` end."""
    newlines = [place for place in range(start, stop) if text[place] == "\n"]
    return newlines[_HEAD_ROWS:]
