"""Requests of a simulation: how many are asked, how they are timed and what is reported."""

from __future__ import annotations

import pytest

from bench.evaluate.methods import choose
from bench.evaluate.replay import Length, Replay
from bench.evaluate.simulate_command import simulated_text
from bench.evaluate.simulated_report import ratios
from bench.evaluate.simulation import Running, Set, Timed
from bench.questions import NotAnswered
from proto.messages import AnswerAssembled, SubmitRequest
from tests.unit.evaluated import record

DIRECT = Replay(
    question="7",
    category="generic",
    question_tokens=40,
    method="direct",
    nodes=(Length(node=0, tokens=400, finish="stop"),),
)


def timed(method: str, wall_ms: float, tokens: int) -> Timed:
    return Timed(
        question="7",
        category="generic",
        method=method,
        concurrency=1,
        mode="sgd",
        as_recorded=True,
        wall_ms=wall_ms,
        plan_ms=0,
        engine_ms=0,
        overhead_ms=0,
        answer_tokens=tokens,
        generated_tokens=tokens,
        prompt_tokens=0,
        cached_tokens=0,
        nodes=1,
    )


def test_a_longer_answer_in_less_time_gains_more_tokens_a_second_than_latency() -> None:
    both = [timed("direct", 1000, 100), timed("sgd", 500, 150)]
    (ratio,) = ratios(both, "sgd", 1, {"7": 2.5})
    found = (ratio.latency, ratio.at_equal_length, ratio.bound)
    assert found == pytest.approx((2.0, 3.0, 2.5))


def test_a_shorter_answer_gains_less_at_equal_length_and_the_report_says_so_beside() -> None:
    both = [timed("direct", 1000, 150), timed("sgd", 250, 100)]
    (ratio,) = ratios(both, "sgd", 1, {})
    assert ratio.at_equal_length == pytest.approx(ratio.latency / 1.5)
    by = choose(["direct", "sgd"])
    text = simulated_text([], both, by, [1], "a100", [])
    assert "| category | n | bound | 1 at once | 1, at equal length |" in text
    assert "| 4 (4–4) | 2.67 (2.67–2.67) |" in text


class Answering:
    """A client whose every request is answered as soon as it is asked."""

    async def submit(self, request: SubmitRequest, id_: str) -> None:
        """Take it."""

    async def end_of(self, request: str) -> AnswerAssembled:
        """Return an answer."""
        end = record("7", "generic", "direct").answer
        assert end
        return end


def running(arrivals: list[float]) -> Running:
    """Return services that answer at once."""
    at_once = Set(pair="a100", dialect="vllm", time_scale=1, concurrency=2)
    return Running(Answering(), (), at_once, arrivals)  # type: ignore[arg-type]


async def test_arrivals_that_are_too_few_are_said_and_not_waited_for() -> None:
    (direct,) = choose(["direct"])
    with pytest.raises(NotAnswered, match=r"direct: 1 of 2 .* too few arrivals"):
        await running([0.0, 0.0, 0.0]).measure(direct, [DIRECT, DIRECT])
    with pytest.raises(NotAnswered, match="0 of 2"):
        await running([0.0]).measure(direct, [DIRECT, DIRECT])


@pytest.mark.parametrize("arrivals", [[], [0.0] * 4, [0.0] * 9])
async def test_all_that_are_measured_are_timed(arrivals: list[float]) -> None:
    (direct,) = choose(["direct"])
    done = await running(arrivals).measure(direct, [DIRECT, DIRECT])
    assert [one.question for one in done] == ["7", "7"]
