"""The text that may be printed so far, in plan order, while later nodes still decode.

Pure. What has been handed out is never wrong except where a node or the whole answer was
made anew; then a :class:`Mark` says so before the new text. Node texts are held back until
the plan is complete, because a plan may collapse to a direct answer; and, where the answer is
polished, all but the first until its end, because their beginnings may change until then.
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
from services.runtime import sentences
from services.runtime.fences import fence_after

#: `live`: text as it comes; `tokens`: whole sentences and lines as they come; `nodes`: whole
#: nodes; `whole`: all at the end.
Grain = Literal["live", "tokens", "nodes", "whole"]

#: So near to its limit of tokens a node may be cut off, and its text trimmed to what is whole:
#: from here on `live` holds back what `tokens` does. Longer than most sentences.
NEAR_LIMIT_TOKENS: Final = 64

# With sentences and code blocks, a subset of what the worker takes for an end when it trims a text
# (services/worker/text.py); a test feeds both with the same streams.
_LIST_LINE: Final = re.compile(r"[ \t]*(?:[-*+•]|\d+[.)])[ \t]*\S[^\n]*(?=\n)")
_ROW: Final = re.compile(r"[ \t]*\|")
#: Rows of a table's head: without one below it, it may be trimmed.
_HEAD_ROWS: Final = 2
_BARE_MARKER: Final = re.compile(r"[ \t]*(?:[-*+•]|\d+[.)])[*_]*\s*\Z")


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
        tokens: how many tokens the engine has generated, as far as is known.
        max_tokens: the engine's limit of them; 0 if it is not known.
    """

    def __init__(self, attempt: int = 1, max_tokens: int = 0) -> None:
        self.attempt = attempt
        self.text = ""
        self.tokens = 0
        self.max_tokens = max_tokens
        self._later: dict[int, str] = {}
        self._settling = Settling()

    def add(self, offset: int, text: str) -> None:
        """Take in a piece; what is known already is skipped."""
        self._later[offset] = max(text, self._later.get(offset, ""), key=len)
        for start in sorted(self._later):
            if start > len(self.text):
                return
            self.text += self._later.pop(start)[len(self.text) - start :]

    def settled(self) -> str:
        """Return the part of the text that stays, whatever follows."""
        return self.text[: self._settling.end(self.text)]

    @property
    def may_be_cut_off(self) -> bool:
        """Whether its end may be so near that what is written now may be trimmed."""
        return self.tokens + NEAR_LIMIT_TOKENS > self.max_tokens


def settled(text: str) -> str:
    """Return the part of an unfinished text that stays, whatever follows.

    A text that is cut off by its length is trimmed in the end: to its last whole sentence or
    list line, or not at all if it ends in an open code block.
    """
    return text[: Settling().end(text)]


class Settling:
    """How far a growing text is settled; looks at each whole line only once."""

    def __init__(self) -> None:
        self._start = 0  # of the first line that is not whole
        self._end = 0
        self._fence: str | None = None
        self._rows = 0  # of a table, so far

    def end(self, text: str) -> int:
        """Return where the settled part ends in `text`, which begins with the last one given."""
        while (newline := text.find("\n", self._start)) >= 0:
            line = text[self._start : newline + 1]
            self._rows = self._rows + 1 if _ROW.match(line) and not self._fence else 0
            self._end, self._fence = self._after(line)
            self._start = newline + 1
        return self._after(text[self._start :])[0] if self._start < len(text) else self._end

    def _after(self, line: str) -> tuple[int, str | None]:
        """Return where the settled part ends after `line`, and the code block open then."""
        fence = fence_after(line, self._fence)
        if self._fence or fence:
            is_decided = self._fence or line.endswith("\n")  # a backtick may follow
            last = len(line.rstrip()) if is_decided else 0
        elif _ROW.match(line):
            whole = line.endswith("\n") and self._rows > _HEAD_ROWS
            last = len(line.rstrip()) if whole else 0
        else:
            last = _last_end(line)
        return (self._start + last if last else self._end), fence


def _last_end(line: str) -> int:
    """Return where the last whole sentence or list line ends in `line`; 0 if there is none."""
    # A preview never ends with spaces: what follows a sentence is known, or nothing does.
    ends = [end for end in sentences.ends(line) if line[end : end + 1].isspace()]
    if listed := _LIST_LINE.match(line):
        ends.append(len(listed[0].rstrip()))
    return max((end for end in ends if not _BARE_MARKER.match(line[:end])), default=0)


@dataclass
class OrderedText:
    """A fold of facts and previews into text in plan order.

    Whatever previews are lost, late or doubled, and in whatever order facts come: with the
    grain `whole` the outputs are the answer's text exactly; with `nodes` too, unless the
    request falls back to a direct answer; with `tokens` too, unless it falls back or a node
    that was printed in part is made anew with another text; with `live` too, unless moreover a
    node is cut off within a sentence longer than `NEAR_LIMIT_TOKENS`, of which a part stays.

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
    _polish: bool = False  # beginnings of later nodes may change until the end
    _done: bool = False

    def fold(self, event: Fact | Preview) -> list[Output]:
        """Take in `event` and return what may be printed because of it."""
        if self._done:
            return []
        match event:
            case PlanCompleted():
                self._nodes = self._nodes or event.nodes
                self._polish = event.polish
            case NodeDecoded():
                self._decoded.setdefault(event.node, event.text)
            case TokensDecoded():
                self._add(event)
            case NodeStarted():
                self._void(event.node, event.attempt, begins=event.attempt)
                self._partial[event.node].max_tokens = event.max_tokens
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
            partial.tokens = max(partial.tokens, piece.tokens)

    def _void(self, node: int, attempt: int, *, begins: int) -> None:
        """Forget the text of attempts up to `attempt`; the next to count is `begins`."""
        partial = self._partial.get(node)
        if partial is None or partial.attempt <= attempt:
            self._partial[node] = Partial(begins)

    def _release(self) -> list[Output]:
        out: list[Output] = []
        if self._nodes is None or self.grain == "whole":
            return out
        while self._place < len(self._nodes) and not (self._polish and self._place):
            node = self._nodes[self._place]
            if node not in self._decoded:
                self._emit_partial(node, out)
                break
            self._emit_rest(node, self._decoded[node], out)
        return out

    def _emit_partial(self, node: int, out: list[Output]) -> None:
        partial = self._partial.get(node)
        if partial is None or self.grain == "nodes":
            return
        live = self.grain == "live" and not partial.may_be_cut_off
        text = partial.text if live else partial.settled()
        if len(text) > len(self._printed) and text.startswith(self._printed):
            self._emit(text[len(self._printed) :], out)
            self._printed = text

    def _emit_rest(self, node: int, text: str, out: list[Output]) -> None:
        if self.grain == "live" and self._printed.startswith(text):
            self._printed = text  # cut off in the midst of a sentence that was printed in part
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
            self._polish = False
            for report in end.nodes:
                self._decoded[report.node.id] = end.text[report.start : report.end]
            out = self._release()
        else:
            out = [Mark(None), end.text]
        self._done = True
        return out
