"""Where an answer is cut off at the caller's wish: at a stop text, or by its length. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from proto.messages import Fact, NodeDecoded, Preview, TokensDecoded

Reason = Literal["stop", "length"]


class Cutter:
    """Passes text on until a stop text or the limit; what may begin a stop text is held back.

    Args:
        stops: texts that end the answer and are not part of it; none is empty.
        max_tokens: limit of the answer's tokens. Engines count tokens by the node, not by the
            place in the text: what stands for so many is found by the mean of this answer.
    """

    def __init__(self, stops: Sequence[str] = (), max_tokens: int | None = None) -> None:
        self._stops = tuple(stops)
        self._max_tokens = max_tokens
        self._held = ""
        self._passed_chars = 0
        self._counted: dict[int, tuple[int, int]] = {}  # node → tokens, characters
        self.reason: Reason | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether there is anything to cut at."""
        return bool(self._stops) or self._max_tokens is not None

    def count(self, event: Fact | Preview) -> None:
        """Take note of how many tokens a text has."""
        if self._max_tokens is None:
            return
        if isinstance(event, NodeDecoded):
            self._counted[event.node] = (event.usage.generated_tokens, len(event.text))
        elif isinstance(event, TokensDecoded):
            chars = event.offset + len(event.text)
            self._counted[event.node] = (event.tokens, chars)

    def begin_anew(self) -> None:
        """Forget the text so far: it is void."""
        self._held, self._passed_chars, self.reason = "", 0, None

    def feed(self, text: str) -> str:
        """Return what may be passed on of the text so far; after the end nothing."""
        if self.reason:
            return ""
        if not self.is_wanted:
            return text
        text = self._held + text
        self._held = ""
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:  # the one that is complete first, whatever the chunking
            self.reason, text = "stop", text[: min(found)[1]]
        else:
            keep = self._may_begin_stop(text)
            text, self._held = text[: len(text) - keep], text[len(text) - keep :]
        return self._within_limit(text)

    def finish(self) -> str:
        """Return what was held back, now that nothing follows."""
        text, self._held = self._held, ""
        return "" if self.reason else self._within_limit(text)

    def _may_begin_stop(self, text: str) -> int:
        """Return the length of the longest end of `text` with which a stop text begins."""
        longest = max((len(stop) for stop in self._stops), default=0)
        for length in range(min(longest - 1, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0

    def _within_limit(self, text: str) -> str:
        room = self._room_chars()
        if room is not None and len(text) > room:
            self.reason, text = "length", text[:room].rstrip()
        self._passed_chars += len(text)
        return text

    def _room_chars(self) -> int | None:
        tokens = sum(tokens for tokens, _ in self._counted.values())
        chars = sum(chars for _, chars in self._counted.values())
        if self._max_tokens is None or tokens <= self._max_tokens or not chars:
            return None
        return max(0, int(self._max_tokens * chars / tokens) - self._passed_chars)
