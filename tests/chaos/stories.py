"""One request's facts, and what about them is wrong. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from proto.messages import (
    AnswerAssembled,
    End,
    NodeDecoded,
    NodeFailed,
    NodePlanned,
    PlanCompleted,
    RequestAccepted,
    RequestFailed,
    SkeletonDrafted,
)
from proto.names import DIRECT_NODE, JOINTS, is_joint, joint_before
from services.assembler.joints import head
from services.planner.draft import kept
from services.runtime.facts import StoredFact
from tests.chaos import texts

JOINT = "\n\n"


@dataclass
class Story:
    """The facts of one request, sorted out; of each place the first fact counts."""

    accepted: RequestAccepted | None = None
    planned: dict[int, NodePlanned] = field(default_factory=dict)
    plan: PlanCompleted | None = None
    decoded: dict[int, NodeDecoded] = field(default_factory=dict)
    #: Nodes decoded before the end.
    in_time: set[int] = field(default_factory=set)
    failed: dict[int, list[NodeFailed]] = field(default_factory=dict)
    ends: list[End] = field(default_factory=list)
    accepted_place: int = -1
    end_place: int = -1
    kinds: list[str] = field(default_factory=list)

    @property
    def end(self) -> End | None:
        """How it ended, if it has."""
        return self.ends[0] if self.ends else None

    def wrong_answer(self) -> Iterator[str]:
        """Yield what is wrong with the answer, if there is one."""
        answer = self.end
        if not isinstance(answer, AnswerAssembled):
            return
        nodes = tuple(report.node.id for report in answer.nodes)
        if not answer.text.strip():
            yield "the answer is empty"
        if not self.in_time.issuperset(nodes):
            yield f"nodes {nodes}, decoded before the end {sorted(self.in_time)}"
            return
        stands = self._polished(answer)
        if answer.text != JOINT.join(stands.values()):
            yield "its text is not that of its nodes, in plan order"
        if len(answer.joints) != (len(nodes) - 1 if self.plan and self.plan.polish else 0):
            yield f"{len(answer.joints)} joints of {len(nodes)} nodes"
        for report in answer.nodes:
            if answer.text[report.start : report.end] != stands[report.node.id]:
                yield f"node {report.node.id} does not stand at {report.start}–{report.end}"
        yield from self._wrong_nodes(answer, nodes)

    def _polished(self, answer: AnswerAssembled) -> dict[int, str]:
        """The texts of the answer's nodes, with what the joints have changed, by node."""
        found = {report.node.id: self.decoded[report.node.id].text for report in answer.nodes}
        for joint in answer.joints:
            if joint.outcome == "polished":
                reply = self.decoded.get(joint_before(joint.node))
                old = head(found[joint.node]) or ""
                found[joint.node] = (reply.text if reply else "?") + found[joint.node][len(old) :]
        return found

    def _wrong_nodes(self, answer: AnswerAssembled, nodes: tuple[int, ...]) -> Iterator[str]:
        if answer.fallback:
            if nodes != (DIRECT_NODE,) or not self.failed:
                yield f"a fallback of nodes {nodes}, failed {sorted(self.failed)}"
        elif self.plan is None or nodes != self.plan.nodes:
            yield f"nodes {nodes}, planned {self.plan.nodes if self.plan else None}"

    def wrong_texts(self) -> Iterator[str]:
        """Yield what is wrong with the nodes' texts: each is one engine call's, and whole."""
        for node, decoded in self.decoded.items():
            if is_joint(node):
                if decoded.text != texts.joint_text(head(self.decoded[node - JOINTS].text) or "?"):
                    yield f"joint {node} is {decoded.text!r}"
                continue
            said = texts.read_text(decoded.text)
            if said is None:
                yield f"node {node}, attempt {decoded.attempt}: no whole text: {decoded.text!r}"
            elif said[:2] != (decoded.request, node):
                yield f"node {node} has the text of {said[0]}/{said[1]}"
            elif said[3] != texts.digest(self._before(node)):
                yield f"node {node} was not told its predecessors' texts"

    def _before(self, node: int) -> list[str]:
        planned = self.planned.get(node)
        needs = sorted(planned.node.needs) if planned else []
        return [self.decoded[need].text for need in needs if need in self.decoded]

    def wrong_plan(self) -> Iterator[str]:
        """Yield what is wrong with the plan: it is the engine's, line by line, from the first."""
        if self.accepted is None or not self.planned:
            return
        lines = texts.plan_lines(self.accepted.request)
        numbers = sorted(self.planned)
        if numbers != list(range(1, len(numbers) + 1)):
            yield f"planned nodes {numbers}"
        for number, planned in self.planned.items():
            line = lines[number - 1] if number <= len(lines) else texts.added_line(number)
            if planned.line != line:
                yield f"line {number} is {planned.line!r}, the engine's {line!r}"
        if self.plan and self.plan.reason == "planned" and self.plan.nodes != self._planned():
            yield f"nodes {self.plan.nodes}, planned {self._planned()} of {len(lines)}"
        if self.plan and self.plan.reason == "planned" and len(numbers) < len(lines):
            yield f"{len(numbers)} nodes of a plan of {len(lines)}"
        if len(numbers) > len(lines) and self.accepted.submitted.planner_pool != "draft":
            yield f"{len(numbers)} nodes of a plan of {len(lines)}, though none may be added"

    def _planned(self) -> tuple[int, ...]:
        """The nodes of the answer: all planned ones, but for what an amendment left out."""
        if self.accepted is None or self.plan is None:
            return ()
        amended = self.plan.written_by == "draft"
        drops = texts.drops(self.accepted.request) if amended else frozenset[int]()
        nodes = [self.planned[number].node for number in sorted(self.planned)]
        return tuple(node.id for node in kept(nodes, drops))


def story_of(facts: Sequence[StoredFact]) -> Story:
    """Sort out the facts of one request, given in the order in which they were stored."""
    story = Story()
    for place, stored in enumerate(facts):
        story.kinds.append(type(stored.fact).__name__)
        match stored.fact:
            case RequestAccepted() as fact:
                story.accepted_place = place if not story.accepted else story.accepted_place
                story.accepted = story.accepted or fact
            case NodePlanned() as fact:
                story.planned.setdefault(fact.node.id, fact)
            case PlanCompleted() as fact:
                story.plan = story.plan or fact
            case NodeDecoded() as fact:
                story.decoded.setdefault(fact.node, fact)
                if not story.ends:
                    story.in_time.add(fact.node)
            case NodeFailed() as fact:
                story.failed.setdefault(fact.node, []).append(fact)
            case AnswerAssembled() | SkeletonDrafted() | RequestFailed() as fact:
                story.end_place = place if not story.ends else story.end_place
                story.ends.append(fact)
    return story
