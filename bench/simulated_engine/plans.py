"""Plans as services/planner asks for them; pure.

Written from the documented text form, not with the planner's own code: a simulated engine that
used it could not show that the two disagree.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from typing import Final

_MARK: Final = "You plan the answer"
_AMEND_MARK: Final = "You check the outline"
#: Shares of what is said of an outline: it stands, a point goes, a point is added.
_AMENDMENTS: Final[dict[str, float]] = {"ok": 0.6, "drop": 0.2, "add": 0.2}
_OUTLINE_LINE = re.compile(r"^(\d+)\. ", re.MULTILINE)
_GO_ON = re.compile(r"Go on with line (\d+), or end")
_FORCED = re.compile(r"\(first line: (\w+)\)")
_NODES: Final = (3, 6)
#: Shares of the gate's words where the model is free, and of points that build on others.
_SHAPES: Final[dict[str, float]] = {"direct": 0.3, "list": 0.25, "graph": 0.45}
_DIRECT: Final = ("code", "number", "fact", "letter", "speech")
_NEEDY: Final = 0.5
_HARD: Final = 0.4
_SIZES: Final = ("short", "medium", "long")
_TITLES: Final = (
    "Causes and background", "Costs and savings", "Effects on people", "First steps",
    "Main risks", "What experts say", "Short history", "Technical limits", "Open questions",
    "Examples from practice", "Comparison of options", "Outlook and advice",
)  # fmt: skip


def asked_for(first_message: str) -> bool:
    """Whether a chat that begins so asks for a plan, or for an amendment of one."""
    return first_message.startswith((_MARK, _AMEND_MARK))


def write(messages: Sequence[str], random: Random) -> str:
    """Return the plan that a chat asks for, the rest of it, or an amendment."""
    if messages[0].startswith(_AMEND_MARK):
        return _amendment(messages[-1], random)
    if found := _GO_ON.search(messages[-1]):
        shape, _, _ = messages[-2].partition("\n")
        return _rest(shape, int(found[1]), random)
    forced = _FORCED.search(messages[-1])
    shape = forced[1] if forced else _drawn_shape(random)
    if shape == "direct":
        return random.choice(_DIRECT)
    lines = _lines(shape, 1, random.randint(*_NODES), random)
    return "\n".join([shape, *lines, "end"])


def _amendment(outline: str, random: Random) -> str:
    last = max((int(number) for number in _OUTLINE_LINE.findall(outline)), default=0)
    word = random.choices(list(_AMENDMENTS), list(_AMENDMENTS.values()))[0]
    if word == "add":
        return "\n".join([*_lines("list", last + 1, last + 1, random), "end"])
    return f"drop {random.randint(1, max(1, last))}" if word == "drop" else "ok"


def _drawn_shape(random: Random) -> str:
    return random.choices(list(_SHAPES), list(_SHAPES.values()))[0]


def _rest(shape: str, first: int, random: Random) -> str:
    last = max(random.randint(*_NODES), first - 1)
    return "\n".join([*_lines(shape, first, last, random), "end"])


def _lines(shape: str, first: int, last: int, random: Random) -> list[str]:
    titles = random.sample(_TITLES, k=len(_TITLES))
    return [
        f"{number}. {titles[number % len(titles)]} | {_level(random)} {random.choice(_SIZES)}"
        f"{_needs(number, random) if shape == 'graph' else ''}"
        for number in range(first, last + 1)
    ]


def _level(random: Random) -> str:
    return "hard" if random.random() < _HARD else "easy"


def _needs(number: int, random: Random) -> str:
    # The first two stand alone, so that a plan is never a chain.
    if number <= 2 or random.random() > _NEEDY:
        return ""
    named = sorted(random.sample(range(1, number), k=random.randint(1, min(3, number - 1))))
    return f" needs {','.join(map(str, named))}"
