"""What the chaos engines write: plans and texts that the audit can compute again. Pure.

A text names the request, the node, the engine's call and a digest of what the node was told
of its predecessors, so that a text that is cut, mixed up or put together from two calls
cannot be taken for a whole one.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from proto.names import joint_before

#: Stands for the planning call where a node's number would stand.
PLAN: Final = -1

#: Requests whose ids are the same up to here have the same plan.
VARIANT: Final = "--"

_WORDS: Final = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet")
_REQUEST: Final = re.compile(r"\[(chaos-[\w-]+)\]")
_PART: Final = re.compile(r"\[Write part (\d+): [^\]]*\]\Z")
_GO_ON: Final = re.compile(r"Go on with line (\d+), or end\.\Z")
_WISH: Final = re.compile(r"\(first line: (\w+)\)\Z")
_LINE: Final = re.compile(r"^\d+\. ", re.MULTILINE)
_BEGINS: Final = re.compile(r"^Second part begins: (Text of (\S+) node (\d+) .*)\Z", re.MULTILINE)
_TEXT: Final = re.compile(r"Text of (\S+) node (\d+) by (\S+) after (\d+): ")
#: Turns of the example that each node is shown.
_EXAMPLE_ANSWERS: Final = 2


@dataclass(frozen=True, slots=True)
class Asked:
    """What a call asks for: a plan (`node` is `PLAN`) or a node's text.

    Args:
        outline: how many lines the plan has that is to be amended; 0 where none is.
        sentence: that is to be fitted to the text before it; empty where none is.
    """

    request: str
    node: int
    after: int
    first_line: int
    wish: str | None
    outline: int = 0
    sentence: str = ""


def question_of(request: str) -> str:
    """Return the question of `request`; it carries the id to the engines."""
    return f"[{request}] What is there to say about it?"


def asked_of(body: Mapping[str, Any]) -> Asked:
    """Return what the body of a chat completion asks for."""
    messages = body["messages"]
    request = _request_in(message["content"] for message in messages)
    last = messages[-1]["content"]
    if begins := _BEGINS.search(last):
        return Asked(begins[2], joint_before(int(begins[3])), 0, 1, None, sentence=begins[1])
    if messages[0]["content"].startswith("You check the outline"):
        return Asked(request, PLAN, 0, 1, None, outline=len(_LINE.findall(last)))
    if messages[0]["content"].startswith("You plan the answer"):
        go_on, wish = _GO_ON.search(last), _WISH.search(last)
        first_line = int(go_on[1]) if go_on else 1
        return Asked(request, PLAN, 0, first_line, wish[1] if wish else None)
    part = _PART.search(last)
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    after = digest(answers[_EXAMPLE_ANSWERS:]) if part else digest(())
    return Asked(request, int(part[1]) if part else 0, after, 1, None)


def _request_in(contents: Iterable[str]) -> str:
    found = [match[1] for content in contents if (match := _REQUEST.search(content))]
    return found[-1] if found else "unknown"


def digest(texts: Iterable[str]) -> int:
    """Return what a text says of its predecessors' texts."""
    return zlib.crc32("\0".join(texts).encode())


def plan_lines(request: str) -> list[str]:
    """Return the lines of the plan of `request`: always the same."""
    rng = Random(f"plan {request.partition(VARIANT)[0]}")
    count = rng.choice((2, 3, 4, 4, 5, 5, 6))
    return [_plan_line(rng, number) for number in range(1, count + 1)]


def _plan_line(rng: Random, number: int) -> str:
    level = rng.choice(("easy", "easy", "hard"))
    before = rng.sample(range(1, number), min(number - 1, rng.choice((0, 0, 0, 1, 2))))
    needs = f" | needs {','.join(map(str, sorted(before)))}" if before else ""
    return f"{number}. Point {number} | {level}{needs}"


def plan_text(asked: Asked) -> str:
    """Return the plan as the engine writes it, from the line that is asked for."""
    lines = plan_lines(asked.request)
    if asked.outline:
        return _amendment(asked)
    if asked.first_line > 1:
        return "\n".join([*lines[asked.first_line - 1 :], "end"])
    usual = Random(f"shape {asked.request}").choice(("direct", "graph", "graph", "graph", "list"))
    shape = asked.wish or usual
    return "direct" if shape == "direct" else "\n".join([shape, *lines, "end"])


def drops(request: str) -> frozenset[int]:
    """Return the nodes that an amendment of the plan of `request` leaves out."""
    rng = Random(f"drops {request.partition(VARIANT)[0]}")
    count = rng.choice((0, 0, 1, 2))
    return frozenset(rng.sample(range(1, len(plan_lines(request)) + 1), count))


def added_line(number: int) -> str:
    """Return the line that an amendment adds as the last of so many."""
    return f"{number}. Point {number} | easy"


def _amendment(asked: Asked) -> str:
    left_out = drops(asked.request)
    adds = Random(f"adds {asked.request}").random() < 0.3
    if not left_out and not adds:
        return "ok"
    lines = [f"drop {','.join(map(str, sorted(left_out)))}"] if left_out else []
    return "\n".join([*lines, *([added_line(asked.outline + 1)] if adds else []), "end"])


def joint_text(sentence: str) -> str:
    """Return what the engine makes of a sentence that is to be fitted to the text before it."""
    return f"Further, {sentence}"


def node_text(request: str, node: int, call: str, after: int) -> str:
    """Return the text of a node as the engine's call of this name writes it."""
    rng = Random(f"text {request} {node} {call}")
    words = " ".join(rng.choices(_WORDS, k=rng.randint(6, 16)))
    return f"Text of {request} node {node} by {call} after {after}: {words}. Done."


def read_text(text: str) -> tuple[str, int, str, int] | None:
    """Return request, node, call and digest that stand in `text`; None if it is no whole text."""
    match = _TEXT.match(text)
    if not match:
        return None
    said = (match[1], int(match[2]), match[3], int(match[4]))
    return said if text == node_text(*said) else None


def tokens_of(text: str) -> list[str]:
    """Return `text` in the pieces in which it is streamed."""
    return re.findall(r"\s*\S+", text)
