"""The dead letters, as they must follow from the facts: one for each node that died, no other."""

from __future__ import annotations

from collections.abc import Iterator

from proto.messages import DeadLetter, NodeFailed
from services.assembler.folded import RetryPolicy
from services.runtime.facts import StoredFact
from tests.chaos.evidence import Evidence
from tests.chaos.stories import Story, story_of
from tests.chaos.violations import Violation

_CHECK = "dead letter"


def the_dead_have_letters(evidence: Evidence) -> Iterator[Violation]:
    known = {letter.request for letter in evidence.letters}
    for request in known | evidence.facts.keys():
        letters = [letter for letter in evidence.letters if letter.request == request]
        for wrong in wrong_letters(evidence.facts.get(request, []), letters):
            yield Violation(_CHECK, wrong, request)


def wrong_letters(facts: list[StoredFact], letters: list[DeadLetter]) -> Iterator[str]:
    """Yield what is wrong with the letters of one request.

    Args:
        facts: of the request, in the order in which they were stored.
        letters: those of the request.
    """
    story = story_of(facts)
    for node in sorted(story.failed.keys() | {letter.node for letter in letters}):
        of_node = [letter for letter in letters if letter.node == node]
        yield from _wrong(story, node, of_node)


def _wrong(story: Story, node: int, letters: list[DeadLetter]) -> Iterator[str]:
    failures = story.failed.get(node, [])
    dead = is_dead(failures)
    # Taken for dead and decoded after all, by one who was thawed: with a letter or without.
    wanted = {0, 1} if dead and node in story.decoded else {int(dead)}
    if len(letters) not in wanted:
        codes = ", ".join(failure.error.code for failure in failures) or "none"
        yield f"node {node} has {len(letters)} letters; failures: {codes}"
    for letter in letters:
        if dead and letter.attempts != len(failures):
            yield f"node {node}'s letter tells of {letter.attempts} of {len(failures)} failures"


def is_dead(failures: list[NodeFailed]) -> bool:
    """Whether a node with these failures is tried no more."""
    final = any(not failure.error.retryable for failure in failures)
    return final or len(failures) >= RetryPolicy().max_attempts
