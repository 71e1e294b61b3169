"""From what a model writes to a node's text: a pure filter over the stream.

Law: let `shown` be all that `feed` returned, joined, and `final` what `finish` returns.
Then one of the two is a prefix of the other. `final` is shorter where the text was cut off
and is trimmed to whole sentences, longer where a code fence had to be closed or the start
was still held back; both are the same in any chunking of the stream. Previews can thus be
sent by offset as they come, and the final text replaces them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from proto.messages import FinishReason, NodeSpec

_MARKS: Final = re.compile(r"[*_#]+")
_SPACES: Final = re.compile(r"[^\S\n]+")
#: What may stand between an echoed heading and the text while it is not decided yet.
_OPEN_TAIL: Final = re.compile(r"\s*(?::\s*|\|[^\n]{0,40})?")
#: A heading ends with its line, or with a colon.
_HEADING_END: Final = r"(?:[ \t]*\|[^\n]{0,40})?(?::?[*_]*[ \t]*:?\s*\n|[*_]*[ \t]*:[*_]*)\s*"

_SENTENCE_END: Final = re.compile(r"(?:[.!?…؟।]+[\"'”’»)\]*_]*(?=\s|$))|[。！？]+[”’」』）]*")
_LIST_LINE: Final = re.compile(r"^[ \t]*(?:[-*+•|]|\d+[.)])[ \t]*\S[^\n]*(?=\n)", re.MULTILINE)
_BARE_MARKER: Final = re.compile(r"(?:^|\n)[ \t]*(?:[-*+•]|\d+[.)])[*_]*\s*\Z")
_FENCE: Final = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n]*$", re.MULTILINE)


class TextFilter:
    """Cleans one node's text while it streams.

    Drops leading whitespace and a heading at the start that only repeats the node's own
    summary (`1. Summary:`, `**Summary**`, `## Part 1: Summary`, the plan's line); holds back
    trailing whitespace. A text that is nothing but its heading is kept.

    Args:
        node: whose heading may be echoed; None where nothing but the text can come.
    """

    def __init__(self, node: NodeSpec | None = None) -> None:
        self._echoes = _echoes(node) if node else ()
        self._heading = _heading(node) if node else None
        self._head: str | None = ""  # None once it is decided
        self._shown: list[str] = []
        self._held = ""

    def feed(self, piece: str) -> str:
        """Return the text that `piece`, the next of the stream, adds to the preview."""
        if self._head is not None:
            piece = self._decided(piece)
        return self._show(piece)

    def finish(self, reason: FinishReason) -> str:
        """Return the whole text, after the stream has ended for `reason`.

        It has no outer whitespace and is empty only if the model wrote nothing. An open
        code fence is closed; else a text that was cut off by its length ends with its last
        whole sentence, list line or code block, if there is one.
        """
        text = ("".join(self._shown) + (self._head or "")).rstrip()
        if marker := _open_fence(text):
            return f"{text}\n{marker}"
        return _whole_sentences(text) if reason == "length" else text

    def _decided(self, piece: str) -> str:
        for place, char in enumerate(piece):
            self._head = ((self._head or "") + char).lstrip()
            if not self._may_be_heading(self._head):
                head, self._head = self._head, None
                return self._without_heading(head) + piece[place + 1 :]
        return ""

    def _may_be_heading(self, head: str) -> bool:
        said = _plain(head)
        return not said or any(_is_open(said, echo) for echo in self._echoes)

    def _without_heading(self, head: str) -> str:
        found = self._heading.match(head) if self._heading else None
        return head[found.end() :] if found else head

    def _show(self, piece: str) -> str:
        text = self._held + piece
        shown = text.rstrip()
        self._held = text[len(shown) :]
        self._shown.append(shown)
        return shown


# --- the start ------------------------------------------------------------------------


def _plain(text: str) -> str:
    return _SPACES.sub(" ", _MARKS.sub("", text)).strip().lower()


def _echoes(node: NodeSpec) -> tuple[str, ...]:
    summary = _plain(node.summary)
    labels = ("", f"{node.id}. ", f"{node.id}) ", f"part {node.id}: ", f"part {node.id}. ")
    return tuple(label + summary for label in labels)


def _is_open(said: str, echo: str) -> bool:
    """Say whether `said` may still become `echo` and the end of a heading."""
    if echo.startswith(said):
        return True
    return said.startswith(echo) and _OPEN_TAIL.fullmatch(said, len(echo)) is not None


def _heading(node: NodeSpec) -> re.Pattern[str]:
    summary = r"\s+".join(map(re.escape, node.summary.split()))
    label = rf"(?:(?:part\s+)?{node.id}\s*[.):][*_]*\s*)?"
    return re.compile(rf"[#*_\s]*{label}[*_]*{summary}{_HEADING_END}", re.IGNORECASE)


# --- the end --------------------------------------------------------------------------


def _fences(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield start, end and marker of each code block; an open one ends beyond the text."""
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opened is None:
            opened = fence
        elif fence[1].startswith(opened[1]) and fence[0].strip() == fence[1]:
            yield opened.start(), fence.end(), opened[1]
            opened = None
    if opened:
        yield opened.start(), len(text) + 1, opened[1]


def _open_fence(text: str) -> str | None:
    return next((marker for _, end, marker in _fences(text) if end > len(text)), None)


def _whole_sentences(text: str) -> str:
    """Return `text` up to its last whole sentence, list line or code block, if there is one."""
    fences = list(_fences(text))
    ends = [end for _, end, _ in fences]
    ends += [
        match.end() for pattern in (_SENTENCE_END, _LIST_LINE) for match in pattern.finditer(text)
    ]
    inside = [(start, end) for start, end, _ in fences]
    for end in sorted(ends, reverse=True):
        whole = text[:end].rstrip()  # a list line may end with a carriage return
        in_code = any(start < end < stop for start, stop in inside)
        if not in_code and not _BARE_MARKER.search(whole):
            return whole
    return text
