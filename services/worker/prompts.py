"""The call that writes one node, laid out for the engine's prefix cache.

What is shared most comes first and stays byte-identical: the rules (all requests), the
example (all requests in one language), the question (all nodes of a request), the plan's
lines as they were emitted (an early node sees a prefix of what a later one sees), the
predecessors' texts in ascending id; the node's own instruction is last. Predecessors are
earlier turns of the chat, asked for in the same words, so that the engine which wrote the
first of them may have its text in the cache, and small models do not copy them out
(measured: told in one message, 135M and 0.5B repeated them word for word).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final

from proto.messages import DecodeNode, NodeSpec, NodeText
from proto.names import DIRECT_NODE, is_joint
from services.runtime.calls import ChatCall, ChatMessage
from services.runtime.context import as_text, as_turns
from services.runtime.languages import Language, language_asked
from services.worker.examples import EXAMPLES
from services.worker.joints import joint_call

#: Limit of a direct answer in tokens, where the client names none.
DIRECT_MAX_TOKENS: Final = 1024

# A node may take more tokens than its budget: what is trimmed at the limit has been decoded for
# nothing, and the same text takes twice as many tokens in Arabic as in English.
_HEADROOM: Final = 2.0
_HEADROOM_TOKENS: Final = 32
#: Small models keep to a number of sentences, not to one of words or tokens.
_TOKENS_PER_SENTENCE: Final = 22

_REPETITION_PENALTY: Final = 1.08

#: A model that goes on with the next part's instruction has finished its own.
_STOP: Final = ("\n[Write part",)

_RULES: Final = """\
You write one part of an answer; other writers write the other parts at the same time. Write \
only the text of the part that is asked for, in the language of the question (unless the \
instructions for the answer name another) and as long as is asked: one paragraph, a list only \
where the part is one. Leave to each other part what its title says. No heading, no \
introduction, no summary of the whole. Say only what is new."""


def node_call(work: DecodeNode) -> ChatCall:
    """Return the call that writes the node of `work`.

    The direct node (id 0) is the conversation and nothing else: it is the baseline.
    """
    if is_joint(work.node.id):
        return joint_call(work)
    messages = _direct(work) if work.node.id == DIRECT_NODE else _part(work)
    return _sampled(messages, work)


def _direct(work: DecodeNode) -> tuple[ChatMessage, ...]:
    return (*as_turns(work.context), ChatMessage("user", work.question))


def _part(work: DecodeNode) -> tuple[ChatMessage, ...]:
    rules, asked = _RULES, _shared(work)
    if "prefix" in work.without:  # what is this node's alone comes first, so nothing is shared
        rules = f"{_instruction(work.node)}\n{_RULES}"
    turns: list[ChatMessage] = []
    for text in sorted(work.predecessors, key=lambda text: text.id):
        turns.append(ChatMessage("user", asked + _instruction(text)))
        turns.append(ChatMessage("assistant", text.text))
        asked = ""
    last = ChatMessage("user", asked + _instruction(work.node))
    example = _example(language_asked(work.question, work.context))
    return (ChatMessage("system", rules), *example, *turns, last)


@cache
def _example(language: Language) -> tuple[ChatMessage, ...]:
    """Return the worked example: part 1, and part 3, whose writer is told part 1."""
    example = EXAMPLES[language]
    lines = tuple(f"{number}. {title}" for number, title in enumerate(example.titles, 1))
    first = NodeText(id=1, summary=example.titles[0], text=example.first, budget_tokens=40)
    third = NodeText(id=3, summary=example.titles[2], text=example.third)
    asked = _asked(example.question, lines) + _instruction(first)
    return (
        ChatMessage("user", asked),
        ChatMessage("assistant", first.text),
        ChatMessage("user", _instruction(third)),
        ChatMessage("assistant", third.text),
    )


def _shared(work: DecodeNode) -> str:
    return as_text(work.context) + _asked(work.question, work.skeleton)


def _asked(question: str, skeleton: tuple[str, ...]) -> str:
    return f"Question: {question}\n\n{_plan(skeleton).told if skeleton else ''}"


@dataclass(frozen=True, slots=True)
class _Plan:
    """A plan as nodes are told it; the same for all nodes of a request, many of which run at once.

    Args:
        told: number and summary of each line: what else it says is not the writer's.
        titles: the same, each by what it begins with: its number.
    """

    told: str
    titles: Mapping[str, str]


@lru_cache(maxsize=64)
def _plan(skeleton: tuple[str, ...]) -> _Plan:
    titles = [line.partition("|")[0].strip() for line in skeleton]
    told = "\n".join(["Parts of the answer:", *titles]) + "\n\n"
    return _Plan(told, {title.partition(".")[0]: title for title in titles})


def _instruction(part: NodeSpec | NodeText) -> str:
    sentences = max(1, round(part.budget_tokens / _TOKENS_PER_SENTENCE))
    length = "1 sentence" if sentences == 1 else f"{sentences} sentences"
    return f"[Write part {part.id}: {part.summary} ({length})]"


def _limit(work: DecodeNode) -> int:
    """Return the most tokens that the node's text may take.

    The client's limit is that of the direct answer. It makes no part longer than its budget
    allows: one that goes on and on holds up the whole answer.
    """
    asked = work.sampling.max_tokens
    if work.node.id == DIRECT_NODE:
        return asked or DIRECT_MAX_TOKENS
    limit = round(work.node.budget_tokens * _HEADROOM) + _HEADROOM_TOKENS
    return min(asked or limit, limit)


def _stops(work: DecodeNode) -> tuple[str, ...]:
    """Return where the engine is to stop: at the instruction for another part, or its line.

    Its whole line, as it was told or as it was planned: a list may have an item of these words.
    """
    if work.node.id == DIRECT_NODE:
        return ()
    following = _plan(work.skeleton).titles.get(str(work.node.id + 1))
    return (*_STOP, f"\n{following}\n", f"\n{following} |") if following else _STOP


def _sampled(messages: tuple[ChatMessage, ...], work: DecodeNode) -> ChatCall:
    sampling = work.sampling
    return ChatCall(
        messages=messages,
        max_tokens=_limit(work),
        temperature=sampling.temperature or 0.0,
        top_p=sampling.top_p,
        seed=sampling.seed,
        stop=_stops(work),
        repetition_penalty=_REPETITION_PENALTY,
    )
