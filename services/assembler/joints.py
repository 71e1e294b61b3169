"""Where two node texts meet: what a model is shown of it, and what of its reply is taken. Pure.

The model may only rewrite the first sentence of the later text. A reply is taken if it is one
whole sentence or two, about as long, that say what the old one said: in the same letters, with
the same numbers and the same Markdown. Else the joint stays as it was. A text that begins with
a heading, a list, a table, a quotation or code is not touched.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

from proto.messages import FinishReason

#: What is shown of the earlier text, and the longest sentence that is rewritten, in characters.
MAX_TAIL_CHARS: Final = 300
MAX_HEAD_CHARS: Final = 400
MIN_HEAD_CHARS: Final = 20
#: A replacement is at most this much longer, and at least this share of the old one.
MAX_MORE_CHARS: Final = 80
MIN_SHARE: Final = 0.6
#: Share of the old sentence's runs of letters that the new one must have.
KEPT_SHARE: Final = 0.6
_RUN_CHARS: Final = 4

_SENTENCE: Final = re.compile(
    r"[^\n]*?(?:[.!?…؟।]+[\"'”’»)\]*_]*(?=\s|$)|[。！？]+[”’」』）]*|(?=\n|$))"
)
_SENTENCE_END: Final = re.compile(r"[.!?…؟।。！？:：][\"'”’»)\]*_”’」』）]*$")
_STRUCTURE: Final = re.compile(r"\s*(?:[-+*•|>#`~]|\d+[.)]\s|\[\d)")
_MARKS: Final = "`*_[]|#$<>:："
_NUMBER: Final = re.compile(r"\d+(?:[.,]\d+)*")
_QUOTES: Final = ('"', "“", "”", "'")


def head(text: str) -> str | None:
    """Return the first sentence of `text` if it may be rewritten, else None."""
    found = _SENTENCE.match(text)
    sentence = found[0] if found else ""
    if _STRUCTURE.match(text) or not MIN_HEAD_CHARS <= len(sentence) <= MAX_HEAD_CHARS:
        return None
    return sentence if _SENTENCE_END.search(sentence) else None


def tail(text: str) -> str:
    """Return the end of `text`: its last line, or the end of that."""
    return text.rstrip().rpartition("\n")[2][-MAX_TAIL_CHARS:]


def joined(before: str, text: str, reply: str, reason: FinishReason) -> str:
    """Return `text` with its first sentence as `reply` has it; unchanged if that is no good.

    Args:
        before: the text that stands before it.
        text: the later text.
        reply: what the model wrote.
        reason: how its reply ended.
    """
    old, new = head(text), _plain(reply)
    if old is None or reason != "stop" or not _is_good(tail(before), old, new):
        return text
    return new + text[len(old) :]


def _plain(reply: str) -> str:
    reply = reply.strip()
    quoted = len(reply) > 1 and reply[0] in _QUOTES and reply[-1] in _QUOTES
    return reply[1:-1].strip() if quoted else reply


def _is_good(before: str, old: str, new: str) -> bool:
    return (
        "\n" not in new
        and MIN_SHARE * len(old) <= len(new) <= len(old) + MAX_MORE_CHARS
        and _SENTENCE_END.search(new) is not None
        and _STRUCTURE.match(new) is None
        and _marks(new) == _marks(old)
        and _says_the_same(before, old, new)
    )


def _marks(text: str) -> Counter[str]:
    return Counter(char for char in text if char in _MARKS)


def _says_the_same(before: str, old: str, new: str) -> bool:
    said, says = set(_NUMBER.findall(old)), set(_NUMBER.findall(new))
    if not said <= says <= said | set(_NUMBER.findall(before)):
        return False
    runs = _runs(old)
    return len(runs & _runs(new)) >= KEPT_SHARE * len(runs)


def _runs(text: str) -> set[str]:
    """Return the runs of letters in `text`: they tell content and language, in any script."""
    letters = "".join(char for char in text.casefold() if char.isalnum())
    return {letters[at : at + _RUN_CHARS] for at in range(max(1, len(letters) - _RUN_CHARS + 1))}
