"""The amendment of a plan: the large model looks over the small one's draft, in a few tokens.

::

    ok                                     the draft stands
    direct                                 the answer should not be decomposed
    drop 3,5                               these points are superfluous, and/or
    6. Cost over ten years | easy medium   these are missing
    end

The draft's nodes are facts, and may be decoding already: nothing of them is reworded. A node
may be left out of the answer, with all that need it; a node may be added after the last.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal

from proto.errors import PlanRejected
from proto.messages import Mode, Turn
from services.planner.grammar import grammar
from services.planner.parser import END_LINE, PlanItem, PlanLimits
from services.planner.reading import PlanReader
from services.runtime.calls import ChatCall, ChatMessage, Grammar
from services.runtime.context import as_text

Verdict = Literal["ok", "direct", "amended"]

#: Most points that an amendment adds: more is another plan.
MAX_ADDED: Final = 2

_SYSTEM: Final = """\
You check the outline of an answer before it is written. Reply with as few words as you can:
- ok, if the outline will do
- direct, if the answer is code, a calculation, a short fact, or one text in one voice
- drop and the numbers of points that say the same as another point or do not belong here
- a point that is badly missing, as a new line in the same form; then end"""

_EXAMPLES: Final = (
    (
        "Should our office move to the suburbs?",
        """1. Rent and running costs | easy short
2. Commute of the staff | hard medium
3. Reaching customers | easy medium
4. Recommendation | hard medium needs 1,2,3""",
        "ok",
    ),
    (
        "How do I keep bees in a city?",
        """1. Laws and neighbours | easy short
2. Choosing a hive | easy short
3. Picking a good hive | easy short
4. Work through the year | hard medium""",
        "drop 3",
    ),
    (
        "Write a function that reverses a list.",
        """1. Reading the list | easy short
2. Swapping items | hard short
3. Returning it | easy short""",
        "direct",
    ),
    (
        "Welche Folgen hätte ein Verbot von Autos in der Stadt?",
        """1. Luft und Lärm | easy short
2. Handel und Lieferungen | hard medium
3. Rezept für Kuchen | easy short""",
        "drop 3\n4. Bus, Bahn und Fahrrad | easy medium\nend",
    ),
    (
        "What are the pros and cons of remote work?",
        """1. Freedom and focus | easy short
2. Contact with colleagues | easy medium
3. Costs | easy short""",
        "ok",
    ),
)

_DROP: Final = re.compile(r"drop\s*:?\s*([0-9]{1,3}(?:\s*,\s*[0-9]{1,3})*)", re.IGNORECASE)
_TOKENS_PER_LINE: Final = 52
_TOKENS_BESIDE: Final = 32


def amendment_call(
    question: str,
    lines: Sequence[str],
    *,
    mode: Mode,
    max_nodes: int,
    context: Sequence[Turn] = (),
    constrained: bool = True,
) -> ChatCall:
    """Return the call whose reply amends the draft of `question`.

    Args:
        question: as the client wrote it.
        lines: of the draft, byte for byte.
        mode: only in `auto` may the answer become direct.
        max_nodes: most nodes in the whole plan.
        context: what was said before the question.
        constrained: whether the reply must match the grammar.
    """
    added = max(0, min(MAX_ADDED, max_nodes - len(lines)))
    asked = ChatMessage("user", as_text(context) + _asked(question, "\n".join(lines)))
    allowed = _grammar(len(lines), added, may_be_direct=mode == "auto")
    return ChatCall(
        messages=(*_prefix(), asked),
        max_tokens=added * _TOKENS_PER_LINE + _TOKENS_BESIDE,
        grammar=allowed if constrained else None,
    )


class AmendmentReader:
    """Reads one amendment from a stream of text, in any chunking.

    Attributes:
        verdict: what it comes to, as far as it is read.
        drops: ids that it wants left out.
        written: all nodes of draft and amendment, as of :class:`PlanReader`.

    Args:
        lines: of the draft; added nodes are numbered on from there.
        max_nodes: most nodes in the whole plan.
    """

    def __init__(self, lines: Sequence[str], max_nodes: int) -> None:
        self.verdict: Verdict = "ok"
        self.drops: frozenset[int] = frozenset()
        self._known = range(1, len(lines) + 1)
        limits = PlanLimits(max_nodes=min(max_nodes, len(lines) + MAX_ADDED))
        self._rest = PlanReader(limits, done=lines)
        self._only_drops = False
        self.written = self._rest.written
        self._head: str | None = ""  # the first line; None once it is read

    def feed(self, text: str) -> list[PlanItem]:
        """Return what `text`, the next piece of the stream, completes.

        Raises:
            PlanRejected: it is no amendment; names the line.
        """
        if self._head is None:
            return self._further(text)
        self._head += text
        if "\n" not in self._head.lstrip():
            return []
        first, _, rest = self._head.lstrip().partition("\n")
        return self._begin(first, rest)

    def close(self) -> list[PlanItem]:
        """Return what the end of the stream completes.

        Raises:
            PlanRejected: as `feed`.
        """
        items = self._begin(self._head, END_LINE) if self._head is not None else []
        if self._only_drops:  # which is whole without an end line
            items += self._rest.feed(END_LINE + "\n")
        return items + self._rest.close()

    def _begin(self, first: str, rest: str) -> list[PlanItem]:
        self._head = None
        word = first.strip().lower()
        if word in ("", "ok", "direct", END_LINE):
            self.verdict = "direct" if word == "direct" else "ok"
            return self._rest.feed(END_LINE + "\n")
        self.verdict = "amended"
        if dropped := _DROP.fullmatch(first.strip()):
            self.drops = self._earlier(dropped[1])
            self._only_drops = True
            return self._further(rest)
        return self._rest.feed(f"{first}\n{rest}")

    def _further(self, text: str) -> list[PlanItem]:
        self._only_drops = self._only_drops and not text.strip()
        return self._rest.feed(text)

    def _earlier(self, ids: str) -> frozenset[int]:
        drops = frozenset(int(found) for found in re.findall(r"[0-9]+", ids))
        if unknown := drops.difference(self._known):
            raise PlanRejected(f"drops {min(unknown)}, which is no node", field="line 1")
        return drops


def _prefix() -> list[ChatMessage]:
    messages = [ChatMessage("system", _SYSTEM)]
    for question, lines, reply in _EXAMPLES:
        messages += [ChatMessage("user", _asked(question, lines)), ChatMessage("assistant", reply)]
    return messages


def _asked(question: str, lines: str) -> str:
    return f"Question: {question}\n\nOutline:\n{lines}"


def _grammar(done: int, added: int, *, may_be_direct: bool) -> Grammar:
    """Return the language of amendments; what is added is the rest of a plan."""
    rest = grammar("sgd", done + added, done)
    words = ("ok", "direct") if may_be_direct else ("ok",)
    ids = [str(number) for number in range(done, 0, -1)]
    starts = [*(f'"{word}"' for word in words), "drop", r'drop "\n" rest', "rest"]
    rules = [
        f"root ::= {' | '.join(starts)}",
        f'drop ::= "drop " id ("," id){{0,{done - 1}}}',
        "id ::= " + " | ".join(f'"{number}"' for number in ids),
        rest.gbnf.replace("root ::=", "rest ::=", 1),
    ]
    one = f"(?:{'|'.join(ids)})"
    drop = rf"drop {one}(?:,{one}){{0,{done - 1}}}(?:\n(?:{rest.regex}))?"
    return Grammar(gbnf="\n".join(rules), regex="|".join([*words, drop, rest.regex]))
