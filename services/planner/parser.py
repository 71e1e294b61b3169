"""The plan's text form, read line by line while the model still writes.

::

    graph                                  the gate's word: list, graph, or a direct answer's
    1. Cost of rent | easy short
    2. Effects on the team | hard long
    3. Advice | hard medium needs 1,2
    end

A word for a direct answer (`direct`, or its kind: `DIRECT_WORDS`) is a whole plan. The
difficulty and the size stand before the needs: in the other order small models chain every
point to the one before.

Tolerated, because models without a grammar write so: blank lines, spaces around a line
and around `|`, a `|` or `,` between any two fields, the fields in any order, any case of the fixed
words, `needs: 1`, `needs none`, a need named twice, needs under `list`, a size left out (it
is `medium`), CRLF, no newline after the last line where that line is `end` or the word for a
direct answer, and whatever follows these (it is not read). All else is refused: needs on the
node itself, a later or an unknown one, ids out of order, a missing or other difficulty,
further fields, an empty summary, control characters, prose.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from proto.errors import PlanRejected
from proto.messages import Difficulty, NodeSpec

ShapeKind = Literal["direct", "list", "graph"]

END_LINE: Final = "end"

#: What the words for a node's size mean: the length of its text, in tokens.
SIZES: Final[Mapping[str, int]] = {"short": 40, "medium": 70, "long": 100}

#: What an answer is that is not cut up. Small models can tell what a text is, but not whether it
#: should be cut up.
DIRECT_WORDS: Final = ("code", "number", "fact", "letter", "speech")

_WORDS: Final[dict[str, ShapeKind]] = {
    "list": "list",
    "graph": "graph",
    **dict.fromkeys(("direct", *DIRECT_WORDS), "direct"),
}
_LEVELS: Final[dict[str, Difficulty]] = {"easy": "easy", "hard": "hard"}
_NODE = re.compile(r"([1-9][0-9]{0,2})\.(.*)")
_FIELD = re.compile(
    r"\s*(?:[|,]\s*)?(?:(?P<level>easy|hard)|(?P<size>short|medium|long)"
    r"|needs\s*:?\s*(?P<needs>none|[0-9]{1,3}(?:(?:\s*,\s*|\s+)[0-9]{1,3})*))(?![^\s|,])",
    re.IGNORECASE,
)
#: Unicode categories that no line may hold: controls, surrogates, line separators.
_FORBIDDEN: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """Bounds of a plan.

    Args:
        max_nodes: most nodes that a plan may have.
        max_line_chars: longest line in characters, without its newline; bounds the memory.
    """

    max_nodes: int = 12
    max_line_chars: int = 300


@dataclass(frozen=True, slots=True)
class Shape:
    """The gate's word."""

    kind: ShapeKind


@dataclass(frozen=True, slots=True)
class Planned:
    """A node; `line` is what the model wrote, byte for byte, without its newline."""

    node: NodeSpec
    line: str


@dataclass(frozen=True, slots=True)
class End:
    """The plan is over.

    Args:
        cut_off: the stream ended before the plan did. Nodes of whole lines stand; a half
            line has been dropped.
    """

    cut_off: bool = False


PlanItem = Shape | Planned | End


class PlanParser:
    """Reads one plan from a stream of text, in any chunking.

    An item is handed out before a later line of the same chunk is refused: a bad line
    takes nothing back. After :class:`PlanRejected` the next `feed` raises it again; after
    :class:`End` the rest is not read.

    Args:
        limits: bounds of the plan.
        done: lines of nodes that are already published, from the first on. They yield no
            items, the gate's word is not expected again, and the next id is
            `len(done) + 1`. A plan with `done` is read as a `graph`.

    Attributes:
        done: the nodes of the lines that are already published.

    Raises:
        PlanRejected: `done` is not the beginning of a plan.
    """

    def __init__(self, limits: PlanLimits | None = None, done: Sequence[str] = ()) -> None:
        self._limits = limits or PlanLimits()
        self._buffer = ""
        self._line = 1 if done else 0
        self._nodes = 0
        self._shape: ShapeKind | None = "graph" if done else None
        self._over = False
        self._rejected: PlanRejected | None = None
        self.done = tuple(self._published(line) for line in done)

    def feed(self, text: str) -> list[PlanItem]:
        """Return what `text`, the next piece of the stream, completes.

        Raises:
            PlanRejected: a line is not part of a valid plan; names the line. Raised at
                once if the piece completes nothing before it, else by the next call.
        """
        if self._rejected:
            raise self._rejected
        if self._over:
            return []
        return self._collect(self._items(text))

    def close(self) -> list[PlanItem]:
        """Return what the end of the stream completes: always an :class:`End`, if not yet seen.

        Raises:
            PlanRejected: as `feed`, or there was no plan at all.
        """
        if self._rejected:
            raise self._rejected
        if self._over:
            return []
        return self._collect(self._last_items())

    def _collect(self, items: Iterator[PlanItem]) -> list[PlanItem]:
        found: list[PlanItem] = []
        try:
            for item in items:
                found.append(item)  # noqa: PERF402  what came before an error is kept
        except PlanRejected as error:
            self._rejected, self._buffer = error, ""
            if not found:
                raise
        return found

    def _items(self, text: str) -> Iterator[PlanItem]:
        *lines, rest = text.split("\n")
        for line in lines:
            yield from self._whole(self._buffer + line)
            self._buffer = ""
            if self._over:
                return
        self._buffer += rest
        self._check_length(self._buffer, self._line + 1)

    def _last_items(self) -> Iterator[PlanItem]:
        last, self._buffer = self._buffer, ""
        word = last.strip().lower()
        if word == END_LINE or _WORDS.get(word) == "direct":
            yield from self._whole(last)
        if self._shape is None:
            raise self._refusal("the model wrote no plan", self._line + 1)
        if not self._over:
            self._over = True
            yield End(cut_off=True)

    def _whole(self, raw: str) -> Iterator[PlanItem]:
        line = raw.removesuffix("\r")
        self._check(line)
        word = line.strip().lower()
        if not word:
            return
        if self._shape is None:
            yield self._first(word)
        elif word != END_LINE:
            yield Planned(self._node(line), line)
        if word == END_LINE or self._shape == "direct":
            self._over, self._buffer = True, ""
            yield End()

    def _published(self, line: str) -> NodeSpec:
        self._check(line)
        return self._node(line)

    def _first(self, word: str) -> Shape:
        self._shape = _WORDS.get(word)
        if self._shape is None:
            raise self._refusal("the first line must be direct, list or graph")
        return Shape(self._shape)

    def _node(self, line: str) -> NodeSpec:
        number, summary, rest = self._parts(line)
        fields = self._fields(rest)
        level = fields.get("level", "").lower()
        if level not in _LEVELS:
            raise self._refusal("the difficulty is missing")
        needs = self._earlier(fields.get("needs", ""))
        self._nodes = number
        return NodeSpec(
            id=number,
            summary=summary,
            needs=tuple(needs),
            difficulty=_LEVELS[level],
            budget_tokens=SIZES[fields.get("size", "medium").lower()],
        )

    def _parts(self, line: str) -> tuple[int, str, str]:
        match = _NODE.fullmatch(line.strip())
        if not match:
            raise self._refusal("a node line or the end line is expected")
        number = int(match[1])
        if number != self._nodes + 1:
            raise self._refusal(f"number {number}, where {self._nodes + 1} is next")
        if number > self._limits.max_nodes:
            raise self._refusal(f"more than {self._limits.max_nodes} nodes")
        summary, _, rest = match[2].partition("|")
        if not summary.strip():
            raise self._refusal("the summary is empty")
        return number, summary.strip(), rest.rstrip()

    def _fields(self, rest: str) -> dict[str, str]:
        """Return what stands behind the summary, by kind."""
        found: dict[str, str] = {}
        place = 0
        while place < len(rest):
            field = _FIELD.match(rest, place)
            if field is None or field.lastgroup is None or field.lastgroup in found:
                raise self._refusal("after the summary come only easy or hard, a size, and needs")
            found[field.lastgroup] = field[field.lastgroup]
            place = field.end()
        return found

    def _earlier(self, ids: str) -> list[int]:
        needs = sorted({int(found) for found in re.findall(r"[0-9]+", ids)})
        for need in needs:
            if not 1 <= need <= self._nodes:
                raise self._refusal(f"needs {need}, which is not an earlier node")
        return needs

    def _check(self, line: str) -> None:
        self._line += 1
        self._check_length(line, self._line)
        if any(unicodedata.category(char) in _FORBIDDEN for char in line):
            raise self._refusal("control characters")

    def _check_length(self, line: str, number: int) -> None:
        if len(line.removesuffix("\r")) > self._limits.max_line_chars:
            raise self._refusal(f"longer than {self._limits.max_line_chars} characters", number)

    def _refusal(self, detail: str, line: int | None = None) -> PlanRejected:
        return PlanRejected(detail, field=f"line {line or self._line}")


def render(shape: ShapeKind, nodes: Sequence[NodeSpec] = ()) -> str:
    """Return the plan's text: what :class:`PlanParser` reads back as the same items."""
    if shape == "direct":
        return "direct"
    return "\n".join([shape, *map(render_node, nodes), END_LINE])


def render_node(node: NodeSpec) -> str:
    """Return one node's line, without its newline."""
    needs = f" needs {','.join(map(str, node.needs))}" if node.needs else ""
    return f"{node.id}. {node.summary} | {node.difficulty} {size_of(node)}{needs}"


def size_of(node: NodeSpec) -> str:
    """Return the word for the node's length: the smallest size that holds it."""
    fitting = [word for word, tokens in SIZES.items() if node.budget_tokens <= tokens]
    return fitting[0] if fitting else "long"
