"""The call that fits the beginning of a part to the end of the part before it."""

from __future__ import annotations

from typing import Final

from proto.messages import DecodeNode
from services.runtime.calls import ChatCall, ChatMessage

#: A sentence, and a phrase that leads to it.
MAX_TOKENS: Final = 160

_RULES: Final = """\
Two writers wrote two parts of one text. You put a short phrase and a comma in front of the first \
sentence of the second part, in its language, so that it follows on from the end of the first. \
Repeat the sentence word for word behind them. Reply with phrase and sentence only. If it follows \
well already, reply with it unchanged."""

_EXAMPLE: Final = (
    ChatMessage(
        "user",
        "First part ends: So a plant that stands too dark grows thin and pale.\n"
        "Second part begins: Plants need water when the soil is dry two centimetres deep.",
    ),
    ChatMessage(
        "assistant", "Besides light, plants need water when the soil is dry two centimetres deep."
    ),
)


def joint_call(work: DecodeNode) -> ChatCall:
    """Return the call that leads from the earlier to the later of the two texts in `work`."""
    before, after = work.predecessors
    asked = f"First part ends: {before.text}\nSecond part begins: {after.text}"
    return ChatCall(
        messages=(ChatMessage("system", _RULES), *_EXAMPLE, ChatMessage("user", asked)),
        max_tokens=MAX_TOKENS,
        stop=("\n",),
    )
