"""Where two node texts meet: what a model is shown of it, and what of its reply is taken. Pure.

The model may only put a phrase in front of the first sentence of the later text. A reply is taken
if it is that sentence, word for word, behind one phrase that ends in a comma and names no new
number: whether a sentence that was reworded still says the same cannot be told from its letters.
Else the joint stays as it was. A text that begins with a heading, a list, a table, a quotation or
code is not touched.
"""

from __future__ import annotations

import re
from typing import Final

from proto.messages import FinishReason
from services.runtime import sentences

#: What is shown of the earlier text, and the longest sentence that is rewritten, in characters.
MAX_TAIL_CHARS: Final = 300
MAX_HEAD_CHARS: Final = 400
MIN_HEAD_CHARS: Final = 20
#: Longest phrase in front of a sentence, in characters.
MAX_LEAD_CHARS: Final = 80

_SENTENCE_END: Final = re.compile(r"[.!?…؟।॥۔。！？｡:：][\"'”’»)\]*_”’」』）]*$")
_STRUCTURE: Final = re.compile(r"\s*(?:[-+*•|>#`~]|\d+[.)]\s|\[\d)")
_LEAD: Final = re.compile(r"[^\n`*_\[\]|#$<>:：]*[,،，、][^\S\n]*")
_NUMBER: Final = re.compile(r"\d+(?:[.,]\d+)*")
_QUOTES: Final = ('"', "“", "”", "'")


def head(text: str) -> str | None:
    """Return the first sentence of `text` if it may be rewritten, else None."""
    line = text.partition("\n")[0]
    sentence = line[: next(sentences.ends(line), len(line))]
    if _STRUCTURE.match(text) or not MIN_HEAD_CHARS <= len(sentence) <= MAX_HEAD_CHARS:
        return None
    return sentence if _SENTENCE_END.search(sentence) else None


def tail(text: str) -> str:
    """Return the end of `text`: its last line, or the end of that."""
    return text.rstrip().rpartition("\n")[2][-MAX_TAIL_CHARS:]


def joined(before: str, text: str, reply: str, reason: FinishReason) -> str:
    """Return `text` with its first sentence as `reply` has it; unchanged if it says another.

    Args:
        before: the text that stands before it.
        text: the later text.
        reply: what the model wrote.
        reason: how its reply ended.
    """
    old, new = head(text), _plain(reply)
    if old is None or reason != "stop" or not _leads_to(tail(before), old, new):
        return text
    return new + text[len(old) :]


def _plain(reply: str) -> str:
    reply = reply.strip()
    quoted = len(reply) > 1 and reply[0] in _QUOTES and reply[-1] in _QUOTES
    return reply[1:-1].strip() if quoted else reply


def _leads_to(before: str, old: str, new: str) -> bool:
    """Say whether `new` is a phrase and the sentence `old`, whose initial may be small then."""
    lead, said = new[: -len(old)], new[-len(old) :]
    return (
        said[1:] == old[1:]
        and said[0] in (old[0], old[0].lower())
        and len(lead) <= MAX_LEAD_CHARS
        and _LEAD.fullmatch(lead) is not None
        and _STRUCTURE.match(lead) is None
        and not any(sentences.ends(lead))
        and set(_NUMBER.findall(lead)) <= set(_NUMBER.findall(before))
    )
