"""What the evaluation reports of records and verdicts."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.evaluate.judging import Outcome
from bench.evaluate.plots import draw
from bench.evaluate.records import Record, Records
from bench.evaluate.report import report
from bench.evaluate.report_command import texts_side_by_side
from proto.errors import InvalidRequest
from proto.messages import ErrorInfo, RequestFailed, Usage
from tests.unit.evaluated import record, recorded

JUDGED = {
    ("sgd", "direct"): {
        "hand": [Outcome("1", "generic", "win"), Outcome("2", "generic", "loss")],
        "m at e": [Outcome("1", "generic", "win"), Outcome("2", "generic", "none")],
    },
}


def test_a_report_has_latency_speed_lengths_and_says_where_nobody_has_judged() -> None:
    text = report(recorded(), {})
    assert "| generic | 2 | 2 (2–2) | 6 (6–6) | 150 | 50 | not judged |" in text


def test_each_judge_has_a_column_and_says_what_it_could_not_judge() -> None:
    text = report(recorded(), JUDGED)
    assert "by hand (wins / ties / losses) | net win rate by m at e (" in text
    assert "| +0% (1 / 0 / 1) | +100% (1 / 0 / 0, 1 without verdict) |" in text
    missing = "not judged: a model needs references"
    assert f"| coding | 1 | 2 (2–2) | 6 (6–6) | 150 | 50 | {missing} | {missing} |" in text


def without_usage(made: Record) -> Record:
    """Return `made` as an engine leaves it that counts no tokens."""
    assert made.answer
    nodes = [node.model_copy(update={"usage": Usage()}) for node in made.answer.nodes]
    end = made.answer.model_copy(update={"nodes": tuple(nodes), "usage": Usage()})
    return made.model_copy(update={"end": end})


def test_engines_that_count_no_tokens_are_reported_on_without(tmp_path: Path) -> None:
    text = report(Records(map(without_usage, recorded().all())), {})
    assert "| generic | 2 | 2 (2–2) | – | – | – | not judged |" in text
    assert "| sgd | 3 | 3 | 1.0 | – | – |" in text
    some = [without_usage(one) if one.question == "1" else one for one in recorded().all()]
    assert "| generic | 2 | 2 (2–2) | 6 (6–6) | 150 | 50 | not judged |" in report(
        Records(some), {}
    )
    assert draw(Records(map(without_usage, recorded().all())), {}, tmp_path)


def test_a_report_of_failures_alone_names_them() -> None:
    failed = record("5", "math", "sgd").model_copy(
        update={
            "end": RequestFailed(
                request="r", error=ErrorInfo(code="busy", message="full", retryable=True)
            )
        }
    )
    assert "5 by sgd" in report(Records([failed]), {})


def test_answers_side_by_side_are_quoted_with_their_plans() -> None:
    text = texts_side_by_side(recorded(), ["1"], ["direct", "sgd"], {"1": "Why?"})
    assert "## Question 1: Why?" in text
    assert "> # Of 1 by sgd" in text
    assert "`1. x | easy`" in text
    with pytest.raises(InvalidRequest, match="question 4"):
        texts_side_by_side(recorded(), ["4"], ["direct"], {})


def test_pictures_are_drawn_of_what_there_is(tmp_path: Path) -> None:
    made = {path.name for path in draw(recorded(), JUDGED, tmp_path)}
    assert made == {
        "lengths.svg", "by-category.svg", "plan-share.svg", "depth-width.svg", "speed-quality.svg",
    }  # fmt: skip
    assert all((tmp_path / name).read_text().lstrip().startswith("<?xml") for name in made)
