"""What a dead letter shows to whoever asks; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from proto.messages import (
    WITHHELD,
    AnswerAssembled,
    DeadLetter,
    DecodeNode,
    Fact,
    LetterShown,
    LetterSummary,
    RequestFailed,
    SkeletonDrafted,
)

State = Literal["open", "answered", "fell_back", "failed", "gone"]

MAX_MESSAGE_CHARS: Final = 300


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """A dead letter as it stands in its stream.

    Args:
        letter: what it says.
        died_at: when NATS stored it, in seconds since the epoch.
        trace: trace context of its request.
    """

    letter: DeadLetter
    died_at: float
    trace: Mapping[str, str] = field(default_factory=dict)


def summary_of(stored: StoredLetter) -> LetterSummary:
    """Return the letter in a line."""
    letter = stored.letter
    return LetterSummary(
        request=letter.request,
        node=letter.node,
        attempts=letter.attempts,
        pool=letter.history[-1].pool if letter.history else letter.work.pool,
        code=letter.error.code,
        message=letter.error.message[:MAX_MESSAGE_CHARS],
        died_at=stored.died_at,
    )


def shown(stored: StoredLetter, facts: Sequence[Fact], *, with_text: bool) -> LetterShown:
    """Return the whole letter and what became of its request, whose facts are `facts`."""
    state, code = state_of(facts)
    return LetterShown(
        letter=stored.letter if with_text else without_text(stored.letter),
        died_at=stored.died_at,
        request_state=state,
        end_code=code,
    )


def state_of(facts: Sequence[Fact]) -> tuple[State, str | None]:
    """Return what became of a request, and its error's code if it failed."""
    for fact in facts:
        match fact:
            case AnswerAssembled(fallback=True):
                return "fell_back", None
            case AnswerAssembled() | SkeletonDrafted():
                return "answered", None
            case RequestFailed():
                return "failed", fact.error.code
            case _:
                continue
    return ("open" if facts else "gone"), None


def without_text(letter: DeadLetter) -> DeadLetter:
    """Return the letter without what a person or a model has written."""
    submitted = letter.submitted
    bare = submitted and submitted.model_copy(update={"question": WITHHELD})
    return letter.model_copy(update={"work": _work_without_text(letter.work), "submitted": bare})


def _work_without_text(work: DecodeNode) -> DecodeNode:
    node = work.node.model_copy(update={"summary": WITHHELD})
    bare = {"question": WITHHELD, "skeleton": (), "predecessors": (), "node": node}
    return work.model_copy(update=bare)
