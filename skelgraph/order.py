"""The text that may be printed so far, in plan order, while later nodes still decode.

Pure. What has been handed out is never wrong except where a node or the whole answer was
made anew; then a :class:`Mark` says so before the new text. Node texts are held back until
the plan is complete, because a plan may collapse to a direct answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Literal

from proto.messages import (
    JOINT,
    AnswerAssembled,
    Fact,
    NodeDecoded,
    NodeFailed,
    NodeReset,
    NodeStarted,
    PlanCompleted,
    Preview,
    TokensDecoded,
)

#: `tokens`: whole sentences and lines as they come; `nodes`: whole nodes; `whole`: all at the end.
Grain = Literal["tokens", "nodes", "whole"]

# A subset of what the worker takes for an end when it trims a text (services/worker/text.py);
# a test feeds both with the same streams.
_SENTENCE: Final = re.compile(r"[.!?…]+[\"'”’»)\]*_]*(?=\s)")
_LIST_LINE: Final = re.compile(r"[ \t]*(?:[-*+•|]|\d+[.)])[ \t]*\S[^\n]*(?=\n)")
_BARE_MARKER: Final = re.compile(r"[ \t]*(?:[-*+•]|\d+[.)])[*_]*\s*\Z")
_LINE: Final = re.compile(r"[^\n]*\n|[^\n]+")
_FENCE: Final = re.compile(r"[ \t]*(`{3,}|~{3,})")


@dataclass(frozen=True, slots=True)
class Mark:
    """What was printed of `node` (of the whole answer, if None) is void; it follows anew."""

    node: int | None


Output = str | Mark


class Partial:
    """The text of a node as far as previews tell it: pieces in any order, with gaps.

    Attributes:
        attempt: the attempt that it belongs to.
        text: what is known from the beginning on, without a gap.
    """

    def __init__(self, attempt: int = 1) -> None:
        self.attempt = attempt
        self.text = ""
        self._later: dict[int, str] = {}

    def add(self, offset: int, text: str) -> None:
        """Take in a piece; what is known already is skipped."""
        self._later[offset] = max(text, self._later.get(offset, ""), key=len)
        for start in sorted(self._later):
            if start > len(self.text):
                return
            self.text += self._later.pop(start)[len(self.text) - start :]


def settled(text: str) -> str:
    """Return the part of an unfinished text that stays, whatever follows.

    A text that is cut off by its length is trimmed in the end: to its last whole sentence or
    list line, or not at all if it ends in an open code block.
    """
    end, start, fence = 0, 0, ""
    for line in _LINE.findall(text):
        fence_here = _FENCE.match(line)
        if fence or fence_here:
            fence = _fence_after(line, fence_here, fence)
            last = len(line.rstrip())
        else:
            last = _last_end(line)
        end = start + last if last else end
        start += len(line)
    return text[:end]


def _fence_after(line: str, here: re.Match[str] | None, opened: str) -> str:
    """Return the marker of the code block that is open after `line`, if one is."""
    if not opened:
        return here[1] if here else ""
    closes = here is not None and here[1].startswith(opened) and line.strip() == here[1]
    return "" if closes else opened


def _last_end(line: str) -> int:
    """Return where the last whole sentence or list line ends in `line`; 0 if there is none."""
    ends = [match.end() for match in _SENTENCE.finditer(line)]
    if listed := _LIST_LINE.match(line):
        ends.append(len(listed[0].rstrip()))
    return max((end for end in ends if not _BARE_MARKER.match(line[:end])), default=0)


@dataclass
class OrderedText:
    """A fold of facts and previews into text in plan order.

    Whatever previews are lost, late or doubled, and in whatever order facts come: with the
    grain `whole` the outputs are the answer's text exactly; with `nodes` too, unless the
    request falls back to a direct answer; with `tokens` too, unless it falls back or a node
    that was printed in part is made anew with another text.

    Args:
        grain: in what portions text is handed out.
    """

    grain: Grain
    _nodes: tuple[int, ...] | None = None
    _decoded: dict[int, str] = field(default_factory=dict)
    _partial: dict[int, Partial] = field(default_factory=dict)
    _place: int = 0  # index of the first node that is not printed whole
    _printed: str = ""  # of that node
    _begun: bool = False
    _joint_due: bool = False
    _done: bool = False

    def fold(self, event: Fact | Preview) -> list[Output]:
        """Take in `event` and return what may be printed because of it."""
        if self._done:
            return []
        match event:
            case PlanCompleted():
                self._nodes = self._nodes or event.nodes
            case NodeDecoded():
                self._decoded.setdefault(event.node, event.text)
            case TokensDecoded():
                self._add(event)
            case NodeStarted():
                self._void(event.node, event.attempt, begins=event.attempt)
            case NodeReset() | NodeFailed():
                self._void(event.node, event.attempt, begins=event.attempt + 1)
            case AnswerAssembled():
                return self._finish(event)
        return self._release()

    @property
    def printing(self) -> int | None:
        """The node whose text is printed in part, if there is one."""
        return self._nodes[self._place] if self._nodes and self._printed else None

    def _add(self, piece: TokensDecoded) -> None:
        partial = self._partial.setdefault(piece.node, Partial(piece.attempt))
        if piece.attempt > partial.attempt:
            partial = self._partial[piece.node] = Partial(piece.attempt)
        if piece.attempt == partial.attempt:
            partial.add(piece.offset, piece.text)

    def _void(self, node: int, attempt: int, *, begins: int) -> None:
        """Forget the text of attempts up to `attempt`; the next to count is `begins`."""
        partial = self._partial.get(node)
        if partial is None or partial.attempt <= attempt:
            self._partial[node] = Partial(begins)

    def _release(self) -> list[Output]:
        out: list[Output] = []
        if self._nodes is None or self.grain == "whole":
            return out
        while self._place < len(self._nodes):
            node = self._nodes[self._place]
            if node not in self._decoded:
                self._emit_partial(node, out)
                break
            self._emit_rest(node, self._decoded[node], out)
        return out

    def _emit_partial(self, node: int, out: list[Output]) -> None:
        partial = self._partial.get(node)
        if partial is None or self.grain != "tokens":
            return
        text = settled(partial.text)
        if len(text) > len(self._printed) and text.startswith(self._printed):
            self._emit(text[len(self._printed) :], out)
            self._printed = text

    def _emit_rest(self, node: int, text: str, out: list[Output]) -> None:
        if not text.startswith(self._printed):
            out.append(Mark(node))
            self._printed = ""
        self._emit(text[len(self._printed) :], out)
        self._place += 1
        self._printed, self._joint_due = "", True

    def _emit(self, text: str, out: list[Output]) -> None:
        if self._joint_due:
            text, self._joint_due = JOINT + text, False
        if text:
            out.append(text)
            self._begun = True

    def _finish(self, end: AnswerAssembled) -> list[Output]:
        nodes = tuple(report.node.id for report in end.nodes)
        if self.grain == "whole" or not self._begun:
            out: list[Output] = [end.text]
        elif nodes == self._nodes:
            for report in end.nodes:
                self._decoded.setdefault(report.node.id, end.text[report.start : report.end])
            out = self._release()
        else:
            out = [Mark(None), end.text]
        self._done = True
        return out
