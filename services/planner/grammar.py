"""The plans that a model may write, as GBNF (llama.cpp) and as one regex (TGI, vLLM, SGLang).

Every reply of either language is a plan that :class:`~services.planner.parser.PlanParser`
reads to its end: ids in order, needs on earlier ids only, a bounded number of bounded lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from proto.messages import Mode
from services.planner.gate import MIN_NODES
from services.planner.parser import DIRECT_WORDS, END_LINE, SIZES, ShapeKind
from services.runtime.calls import Grammar

#: Most words of a summary, and characters of a word (a whole title where no spaces are used).
MAX_WORDS: Final = 8
MAX_WORD_CHARS: Final = 24
#: Most needs of a node: more make it wait for everything, behind a long prefill.
MAX_NEEDS: Final = 4

# What a summary's word is not made of: whatever Python takes for a space, controls, line
# separators, the field mark, and the punctuation by which a short title turns into a sentence.
_NOT_IN_WORD: Final = (
    r" |:;,!?\x22\x00-\x1F\x7F-\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000"
    r"\u060C\u061B\u061F\u3001\u3002\uFF01\uFF0C\uFF1A\uFF1B\uFF1F"
)
_LEVEL: Final = ("easy", "hard")


def shapes_of(mode: Mode) -> tuple[ShapeKind, ...]:
    """Return the gate's words that `mode` leaves open."""
    forced: dict[Mode, tuple[ShapeKind, ...]] = {"sot": ("list",), "sgd": ("graph",)}
    return forced.get(mode, ("direct", "list", "graph"))


def grammar(mode: Mode, max_nodes: int, done: int = 0) -> Grammar:
    """Return the language of plans, or of the rest of a plan after `done` node lines.

    Args:
        mode: forced modes leave only one word on the first line.
        max_nodes: most nodes in the whole plan; a plan has at least `MIN_NODES`, or this many.
        done: node lines that are already written; the reply goes on after them, where `mode`
            leaves the choice as a graph.
    """
    shapes = shapes_of(mode)[-1:] if done else shapes_of(mode)
    done = min(done, max_nodes)
    return Grammar(gbnf=_gbnf(shapes, max_nodes, done), regex=_regex(shapes, max_nodes, done))


# --- GBNF -----------------------------------------------------------------------------


def _gbnf(shapes: Sequence[ShapeKind], most: int, done: int) -> str:
    rules = [
        f"root ::= {' | '.join(_gbnf_start(shape, done) for shape in shapes)}",
        f"char ::= [^{_NOT_IN_WORD}]",
        f"word ::= char{{1,{MAX_WORD_CHARS}}}",
        f'title ::= word (" " word){{0,{MAX_WORDS - 1}}}',
        f'marks ::= " | " ({_gbnf_words(_LEVEL)}) " " ({_gbnf_words(tuple(SIZES))})',
    ]
    for shape in shapes:
        if shape != "direct":
            rules += _gbnf_lines(shape, most, done)
    return "\n".join(rules)


def _gbnf_words(words: Sequence[str]) -> str:
    return " | ".join(f'"{word}"' for word in words)


def _gbnf_start(shape: ShapeKind, done: int) -> str:
    if shape == "direct":
        return _gbnf_words(DIRECT_WORDS)
    return f"{shape}{done + 1}" if done else f'"{shape}\\n" {shape}1'


def _gbnf_lines(shape: ShapeKind, most: int, done: int) -> list[str]:
    rules = [f'{shape}{most + 1} ::= "{END_LINE}"']
    for number in range(done + 1, most + 1):
        needs = _gbnf_needs(number) if shape == "graph" else ""
        end = f' | "{END_LINE}"' if number > MIN_NODES else ""
        line = f'"{number}. " title marks{needs} "\\n"'
        rules.append(f"{shape}{number} ::= {line} {shape}{number + 1}{end}")
    return rules


def _gbnf_needs(number: int) -> str:
    if number == 1:
        return ""
    earlier = " | ".join(f'"{need}"' for need in range(1, number))
    more = min(number - 1, MAX_NEEDS) - 1
    return f' (" needs " ({earlier}) ("," ({earlier})){{0,{more}}})?'


# --- regex ----------------------------------------------------------------------------


def _regex(shapes: Sequence[ShapeKind], most: int, done: int) -> str:
    return "|".join(_regex_plan(shape, most, done) for shape in shapes)


def _regex_plan(shape: ShapeKind, most: int, done: int) -> str:
    if shape == "direct":
        return "|".join(DIRECT_WORDS)
    rest = ""
    for number in range(most, done, -1):
        line = _regex_line(number, shape)
        rest = f"{line}{rest}" if number <= MIN_NODES else f"(?:{line}{rest})?"
    start = "" if done else f"{shape}\\n"
    return f"{start}{rest}{END_LINE}"


def _regex_line(number: int, shape: ShapeKind) -> str:
    word = f"[^{_NOT_IN_WORD}]{{1,{MAX_WORD_CHARS}}}"
    title = f"{word}(?: {word}){{0,{MAX_WORDS - 1}}}"
    needs = _regex_needs(number) if shape == "graph" else ""
    marks = rf" \| (?:{'|'.join(_LEVEL)}) (?:{'|'.join(SIZES)})"
    return rf"{number}\. {title}{marks}{needs}\n"


def _regex_needs(number: int) -> str:
    if number == 1:
        return ""
    earlier = f"(?:{'|'.join(str(need) for need in range(number - 1, 0, -1))})"
    more = min(number - 1, MAX_NEEDS) - 1
    return rf"(?: needs {earlier}(?:,{earlier}){{0,{more}}})?"
