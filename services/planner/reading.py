"""A plan as it is read: the parser's items, without points that are said twice. Pure.

The check works on a prefix of the plan, because a line is published as soon as it ends: a
point that repeats an earlier one is left out before it becomes a fact. The points after it
move up by one number. Needs stay as they are written: a node that does not get the text it
builds on is worse than one that waits. What is nearly a chain the gate answers directly.

A small model that is asked in a language that it hardly knows copies a plan out of its prompt.
What begins with the first two points of one of these is refused whole, as what is no plan is.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Final

from proto.errors import PlanRejected
from proto.messages import NodeSpec
from services.planner.parser import PlanItem, PlanLimits, Planned, PlanParser, render_node
from services.planner.prompts import example_titles

_ARTICLES: Final = frozenset(("a", "an", "the", "der", "die", "das"))
#: A plural without its s has so many letters: "News channels" are not new ones.
_MIN_STEM_CHARS: Final = 4
#: So many points in order tell a copy: one alone may stand in any plan.
_OPENING: Final = 2


class PlanReader:
    """Reads one plan from a stream of text, in any chunking, and checks it line by line.

    Args:
        limits: bounds of the plan.
        done: lines of nodes that are already published, as for :class:`PlanParser`.
        checked: whether points are checked; else this is the parser.

    Attributes:
        done: the nodes of `done`, as they were published.
        written: all nodes so far, those of `done` included.
        lines: how many points the model has written, repeated ones included.

    Raises:
        PlanRejected: as :class:`PlanParser`, or the plan is copied out of the prompt. Of the piece
            that completes its second line nothing is handed out then.
    """

    def __init__(
        self,
        limits: PlanLimits | None = None,
        done: Sequence[str] = (),
        *,
        checked: bool = True,
    ) -> None:
        self._parser = PlanParser(limits, done)
        self._checked = checked
        self._ids: dict[int, int] = {}  # by the number that the model wrote
        self._points: dict[tuple[str, ...], int] = {}
        self.written: list[NodeSpec] = []
        self.lines = len(done)
        self.done = list(self._parser.done)
        for node in self.done:
            self._note(node, node.id)

    def feed(self, text: str) -> list[PlanItem]:
        """Return what `text`, the next piece of the stream, completes; raises as the parser."""
        return list(self._read(self._parser.feed(text)))

    def close(self) -> list[PlanItem]:
        """Return what the end of the stream completes; raises as the parser."""
        return list(self._read(self._parser.close()))

    def _read(self, items: Sequence[PlanItem]) -> Iterator[PlanItem]:
        for item in items:
            if not isinstance(item, Planned):
                yield item
            elif planned := self._planned(item):
                yield planned

    def _planned(self, item: Planned) -> Planned | None:
        """Return the item as it is published, or None if it is left out."""
        said = item.node
        self.lines += 1
        point = point_of(said.summary)
        if self._checked and said.id == _OPENING and self._is_copied(point):
            raise PlanRejected("copied from an example of the prompt")
        known = self._points.get(point) if point else None
        if self._checked and known:
            self._ids[said.id] = known
            return None
        node = _renumbered(said, self._ids, len(self.written) + 1)
        self._note(node, said.id)
        return Planned(node, item.line if node.id == said.id else render_node(node))

    def _is_copied(self, second: tuple[str, ...]) -> bool:
        return (point_of(self.written[0].summary), second) in _openings()

    def _note(self, node: NodeSpec, number: int) -> None:
        """Note a node that is published, and that the model has numbered `number`."""
        self.written.append(node)
        self._ids[number] = node.id
        self._points[point_of(node.summary)] = node.id


def _renumbered(node: NodeSpec, ids: Mapping[int, int], number: int) -> NodeSpec:
    needs = tuple(sorted({ids[need] for need in node.needs}))
    renumbered: NodeSpec = node.model_copy(update={"id": number, "needs": needs})
    return renumbered


@cache
def _openings() -> frozenset[tuple[tuple[str, ...], ...]]:
    """Return the first points of each plan that the prompt shows."""
    return frozenset(tuple(map(point_of, titles[:_OPENING])) for titles in example_titles())


def point_of(summary: str) -> tuple[str, ...]:
    """Return what two summaries of the same point have in common; empty is nothing.

    Their words in order, whatever the case, spaces and punctuation, English plurals and the
    article in front. Two that differ in more are two points: to drop one that is new costs more
    than to keep one twice. Signs are words or parts of them (C++, C#, vowel signs, emoji).
    """
    folded = unicodedata.normalize("NFKC", summary).casefold()
    words = "".join(char if _tells(folded, at) else " " for at, char in enumerate(folded)).split()
    said = words[1:] if len(words) > 1 and words[0] in _ARTICLES else words
    return tuple(map(_singular, said))


def _tells(text: str, at: int) -> bool:
    """Say whether a character is no space or punctuation: C# is another point than C."""
    if text[at] == "#":
        return at > 0 and text[at - 1].isalnum()
    return unicodedata.category(text[at])[0] in "LMNS"


def _singular(word: str) -> str:
    stem = word.removesuffix("s")
    return word if len(stem) < _MIN_STEM_CHARS or stem.endswith("s") else stem
