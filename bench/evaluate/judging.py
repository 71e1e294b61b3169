"""Which of two answers is better: what the judge is asked, and what its words count; pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from bench.evaluate.figures import EXACT
from bench.evaluate.records import Frozen, Records, digest
from bench.questions import Question
from services.runtime.calls import ChatCall, ChatMessage, Grammar

#: As judges say it: of the answers as they were shown.
Verdict = Literal["A", "B", "tie"]
#: `straight` shows the first method's answer as A, `swapped` as B.
Order = Literal["straight", "swapped"]
ORDERS: Final[tuple[Order, ...]] = ("straight", "swapped")

_RULES: Final = """\
You compare two answers to the same question and say which one helps the person who asked it \
more. Weigh, in this order: is it right; does it answer what was asked, all of it; can it be \
followed, as one text without repetition and contradiction; does it say something that is of use. \
Neither the length of an answer nor its place (A or B) counts for anything. If you cannot tell \
them apart in what counts, say tie.
Write two or three sentences of reasons. Then, on a line of its own, one of:
verdict: A
verdict: B
verdict: tie"""

_VERDICT_LINE: Final = re.compile(r"verdict: (A|B|tie)", re.IGNORECASE)
# A reason begins with a letter, but not with that of "verdict": a small judge gave the list of what
# may be said as its reason.
_NOT_FIRST: Final = r"\x00-\x40\x5B-\x60\x7B-\x7FVv"
#: Reasons in one line of bounded length, then the verdict.
GRAMMAR: Final = Grammar(
    gbnf=rf'root ::= [^{_NOT_FIRST}] [^\n]{{0,599}} "\n" "verdict: " ("A" | "B" | "tie")',
    regex=rf"[^{_NOT_FIRST}][^\n]{{0,599}}\nverdict: (A|B|tie)",
)
MAX_TOKENS: Final = 400


@dataclass(frozen=True, slots=True)
class Shown:
    """Two answers as they are shown."""

    a: str
    b: str

    @property
    def texts(self) -> str:
        """Digest of both."""
        return digest(f"{self.a}\x00{self.b}")


class Judgement(Frozen):
    """One look of the judge at one pair.

    Args:
        question: its id.
        category: of the question.
        first: a method.
        second: the method it is compared with.
        order: how the two were shown.
        texts: digest of both answers: others are judged anew.
        verdict: what the judge said; None if that was no verdict.
        said: its words.
        judge: its model and endpoint.
        reference: whether it was shown an answer known to be right.
    """

    question: str
    category: str
    first: str
    second: str
    order: Order
    texts: str
    verdict: Verdict | None
    said: str
    judge: str
    reference: bool = False

    @property
    def score(self) -> int | None:
        """+1 if the first method won, −1 if the second did, 0 for a tie; None without verdict."""
        return (
            None if self.verdict is None else score(self.verdict, swapped=self.order == "swapped")
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the first method fared on one question."""

    question: str
    category: str
    result: Literal["win", "loss", "tie", "none"]


@dataclass(frozen=True, slots=True)
class Tally:
    """How often the first method won; `none` are pairs without verdict, counted in nothing else."""

    wins: int
    ties: int
    losses: int
    none: int = 0

    @property
    def judged(self) -> int:
        """Pairs with a verdict."""
        return self.wins + self.ties + self.losses

    @property
    def net(self) -> float | None:
        """Net win rate: wins less losses, by the pairs with a verdict; None if there are none."""
        return (self.wins - self.losses) / self.judged if self.judged else None

    def __str__(self) -> str:
        if self.net is None:
            return "not judged" + (f", {self.none} without verdict" if self.none else "")
        beside = f", {self.none} without verdict" if self.none else ""
        return f"{self.net:+.0%} ({self.wins} / {self.ties} / {self.losses}{beside})"


#: The looks at one pair of answers.
_Pair = Mapping[Order, Judgement]


@dataclass(slots=True)
class Steadiness:
    """How far a judge means the answers and not their places.

    One that cannot tell the answers apart says A, or B, in both orders.

    Args:
        same: pairs of which it said the same in both orders.
        pairs: those with a verdict in both orders.
        said: looks by verdict.
    """

    same: int = 0
    pairs: int = 0
    said: Counter[Verdict | None] = field(default_factory=Counter)

    def add(self, looks: _Pair) -> None:
        """Count the looks at one pair."""
        self.said.update(one.verdict for one in looks.values())
        scores = [one.score for one in looks.values() if one.verdict]
        if len(scores) == len(ORDERS):
            self.pairs += 1
            self.same += len(set(scores)) == 1


def call(question: Question, answers: Shown) -> ChatCall:
    """Return what the judge is asked of two answers."""
    parts = [f"Question:\n{question.told}"]
    if question.reference:
        parts.append(f"An answer that is known to be right:\n{question.reference}")
    parts += [f"Answer A:\n{answers.a}", f"Answer B:\n{answers.b}", "Which answer is better?"]
    return ChatCall(
        messages=(ChatMessage("system", _RULES), ChatMessage("user", "\n\n---\n\n".join(parts))),
        max_tokens=MAX_TOKENS,
        grammar=GRAMMAR,
    )


def verdict_in(said: str) -> Verdict | None:
    """Return the verdict on the last line of `said`.

    None if that line is anything else, or if another line is another verdict.
    """
    matches = [_VERDICT_LINE.fullmatch(line.strip()) for line in said.strip().splitlines()]
    verdicts = {match[1].upper() for match in matches if match}
    if not matches or matches[-1] is None or len(verdicts) > 1:
        return None
    found: dict[str, Verdict] = {"A": "A", "B": "B", "TIE": "tie"}
    return found[verdicts.pop()]


def score(verdict: Verdict, *, swapped: bool) -> int:
    """Return +1 if the method that stands first in straight order won, −1 if it lost, else 0."""
    if verdict == "tie":
        return 0
    return 1 if (verdict == "A") != swapped else -1


def shown(records: Records, question: str, methods: tuple[str, str]) -> dict[Order, Shown]:
    """Return the answers of both methods as they are shown, by order; none if one is missing."""
    found = [records.find(question, method) for method in methods]
    texts = [one.answer.text for one in found if one and one.answer]
    if len(texts) < len(found):
        return {}
    first, second = texts
    return {"straight": Shown(first, second), "swapped": Shown(second, first)}


def may_judge(category: str, *, reference: bool) -> bool:
    """Whether a model may judge: right and wrong it has to be told, where answers can be either."""
    return reference or category not in EXACT


def outcomes(
    judgements: Iterable[Judgement], records: Records, methods: tuple[str, str]
) -> dict[str, list[Outcome]]:
    """Return how the first of `methods` fared, by judge: the sign of both orders' sum a question.

    A judge's looks at other texts than those in `records` count for nothing. A question of which
    one order has no verdict has none.
    """
    return {
        judge: list(map(_outcome, pairs))
        for judge, pairs in _counted(judgements, records, methods).items()
    }


def steadiness(
    judgements: Sequence[Judgement], records: Records, pairs: Iterable[tuple[str, str]]
) -> dict[str, Steadiness]:
    """Return how steady each judge was in the looks from which `outcomes` of `pairs` come."""
    found: dict[str, Steadiness] = {}
    for methods in pairs:
        for judge, looks in _counted(judgements, records, methods).items():
            for pair in looks:
                found.setdefault(judge, Steadiness()).add(pair)
    return found


def _counted(
    judgements: Iterable[Judgement], records: Records, methods: tuple[str, str]
) -> dict[str, list[_Pair]]:
    """Return the looks that count at the two answers to each question, by judge."""
    found: dict[str, dict[str, dict[Order, Judgement]]] = {}
    for one in judgements:
        if (one.first, one.second) == methods and _counts(one, records, methods):
            found.setdefault(one.judge, {}).setdefault(one.question, {})[one.order] = one
    return {judge: list(by_question.values()) for judge, by_question in found.items()}


def _counts(one: Judgement, records: Records, methods: tuple[str, str]) -> bool:
    now = shown(records, one.question, methods).get(one.order)
    return (
        now is not None
        and now.texts == one.texts
        and may_judge(one.category, reference=one.reference)
    )


def tally(found: Sequence[Outcome]) -> Tally:
    """Return the counts of `found`."""
    of = [one.result for one in found]
    return Tally(of.count("win"), of.count("tie"), of.count("loss"), of.count("none"))


def _outcome(looks: _Pair) -> Outcome:
    one = next(iter(looks.values()))
    scores = [looks[order].score if order in looks else None for order in ORDERS]
    known = [value for value in scores if value is not None]
    if len(known) < len(ORDERS):
        return Outcome(one.question, one.category, "none")
    total = sum(known)
    return Outcome(one.question, one.category, "win" if total > 0 else "loss" if total else "tie")
