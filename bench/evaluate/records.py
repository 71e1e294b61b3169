"""What is recorded of a question that was answered by a method."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from bench.evaluate.lines import JsonLines
from bench.questions import Question
from proto.errors import InvalidRequest
from proto.messages import AnswerAssembled, End, NodeSpec, SkeletonDrafted

RECORDS: Final = "records.jsonl"


class Frozen(BaseModel):
    """Base of what is kept in files."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PlanLine(Frozen):
    """A line of the plan; `planned_ms` as in `NodePlanned`."""

    line: str
    planned_ms: float


class Record(Frozen):
    """A question, the method, and how it ended.

    Args:
        question: its id in the file.
        category: of the question.
        asked: digest of the question and what was said before, by which a changed file is noticed.
        method: name of the method.
        request: id under which it was asked.
        recorded_at: seconds since the epoch.
        load: of the machine at the end, running processes over a minute.
        plan: its lines as they came, also those that were not used in the end.
        first_text_ms: from the submit to the first text of the answer's first node, as a client
            saw it; None if there was none.
        end: the answer with its texts, reports, usage and timings; the skeleton; or the failure.
    """

    question: str
    category: str
    asked: str
    method: str
    request: str
    recorded_at: float
    load: float
    plan: tuple[PlanLine, ...] = ()
    first_text_ms: float | None = None
    end: End

    @property
    def answer(self) -> AnswerAssembled | None:
        """The answer, if there is one."""
        return self.end if isinstance(self.end, AnswerAssembled) else None

    @property
    def specs(self) -> Sequence[NodeSpec]:
        """The nodes of the answer or skeleton, in plan order."""
        if isinstance(self.end, AnswerAssembled):
            return [report.node for report in self.end.nodes]
        return self.end.nodes if isinstance(self.end, SkeletonDrafted) else []


def digest(text: str) -> str:
    """Return a short digest of `text`."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def records_of(folder: Path) -> JsonLines[Record]:
    """Return the file of records in `folder`."""
    return JsonLines(folder / RECORDS, Record)


class Records:
    """The latest record of each question and method that did not fail, and the failures.

    Args:
        records: in the order in which they were made.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._done: dict[tuple[str, str], Record] = {}
        self._failed: dict[tuple[str, str], list[Record]] = {}
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Take `record` in."""
        key = (record.question, record.method)
        if record.end.type == "RequestFailed":
            self._failed.setdefault(key, []).append(record)
        else:
            self._done[key] = record

    def find(self, question: str, method: str) -> Record | None:
        """Return how the question was answered by the method, if it was."""
        return self._done.get((question, method))

    def failures(self, question: str, method: str) -> int:
        """Return how often it failed."""
        return len(self._failed.get((question, method), ()))

    def failed(self) -> list[Record]:
        """Return the last failure of all that have never been answered."""
        return [all_[-1] for key, all_ in self._failed.items() if key not in self._done]

    def all(self) -> list[Record]:
        """Return what did not fail."""
        return list(self._done.values())

    def methods(self) -> list[str]:
        """Return the methods that anything was answered by, in the order of their first record."""
        return list(dict.fromkeys(record.method for record in self._done.values()))


def refuse_changed(records: Records, questions: Iterable[Question]) -> None:
    """Make sure that what is recorded answers the questions as they are now.

    Raises:
        InvalidRequest: a question has another text than the one that was answered; names it.
    """
    asked = {question.id: digest(question.identity) for question in questions}
    changed = [one for one in records.all() if asked.get(one.question, one.asked) != one.asked]
    if changed:
        ids = ", ".join(dict.fromkeys(one.question for one in changed))
        said = f"{ids}: recorded with another text under the same id; record into another folder"
        raise InvalidRequest(said, field="questions")


def read_folders(folders: Iterable[Path]) -> Records:
    """Return the records of several folders together.

    Raises:
        InvalidRequest: a line of one is no record.
    """
    return Records(record for folder in folders for record in records_of(folder).read())
