"""The scripted engine knows the planner's call, and its plan is one."""

from __future__ import annotations

from services.planner.parser import Planned, PlanParser
from services.planner.prompts import plan_call
from services.runtime.calls import ChatCall, ChatMessage
from services.runtime.dialects import TGI, parameters
from tests.scripted_engine import PLAN, asks_for_plan


def test_the_planners_call_is_told_from_others() -> None:
    plan = plan_call("Why?", mode="auto", max_nodes=6)
    other = ChatCall((ChatMessage("user", "Why?"),), max_tokens=1)
    assert asks_for_plan(parameters(plan, TGI))
    assert not asks_for_plan(parameters(other, TGI))


def test_its_plan_is_a_plan() -> None:
    parser = PlanParser()
    items = parser.feed(PLAN) + parser.close()
    assert [item.node.id for item in items if isinstance(item, Planned)] == [1, 2, 3, 4]
