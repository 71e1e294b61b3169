"""What the simulated engine says: recorded replies, plans, or prose by the length law; pure.

Everything follows from the seed and the prompt: the same request gets the same reply.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from bench.simulated_engine import plans
from bench.simulated_engine.tokens import pieces

_VOCABULARY: Final = (
    "the of and a to in is that it for as with on by this from at are be or an which was not "
    "one can more other time water people system small large part first point light work "
    "because while however often many most some each these there their about between under "
    "change energy number value cost effect reason example answer question result model form "
    "begins leads grows turns shows keeps makes gives takes needs follows depends means"
)
_WORDS: Final = tuple(_VOCABULARY.split())
_SENTENCE_WORDS: Final = (6, 16)
#: Sentences that an author knows; made once, as replies are made while streams wait.
_SENTENCES: Final = 256


@dataclass(frozen=True, slots=True)
class Turn:
    """A message of a chat, or a bare prompt."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """A reply to give where `match` occurs in the last message.

    Args:
        match: the text to look for.
        reply: what to say.
        tokens: how many tokens it counts; by its text if None.
    """

    match: str
    reply: str
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class LengthLaw:
    """How long a reply is: log-normal, in tokens; always the same if `spread` is 0."""

    median: float = 160.0
    spread: float = 0.6
    most: int = 4000

    def draw(self, random: Random) -> int:
        """Return a length."""
        drawn = self.median * math.exp(self.spread * random.gauss(0.0, 1.0))
        return max(1, min(round(drawn), self.most))


class Author:
    """Writes replies.

    Args:
        seed: another one, other replies.
        lengths: of prose.
        recorded: replies that come before all else, the first match wins.
    """

    def __init__(
        self,
        seed: int = 0,
        lengths: LengthLaw | None = None,
        recorded: Sequence[Recorded] = (),
    ) -> None:
        self._seed = seed
        self._lengths = lengths or LengthLaw()
        self._recorded = tuple(recorded)
        made = Random(f"sentences/{seed}")
        self._sentences = [pieces(_sentence(made)) for _ in range(_SENTENCES)]

    def write(self, turns: Sequence[Turn], seed: int | None, most: int) -> list[str]:
        """Return the tokens of the reply to `turns`.

        Args:
            turns: the chat.
            seed: of the request.
            most: prose ends after so many tokens, though it may be meant to be longer.
        """
        last = turns[-1].content
        for recorded in self._recorded:
            if recorded.match in last:
                return _fitted(pieces(recorded.reply), recorded.tokens)
        random = self.random(turns, seed)
        if plans.asked_for(turns[0].content):
            return pieces(plans.write([turn.content for turn in turns], random))
        return self._prose(random, most)

    def random(self, turns: Iterable[Turn], seed: int | None = None) -> Random:
        """Return the source of all that follows from this request."""
        whole = "\x00".join(f"{turn.role}\x01{turn.content}" for turn in turns)
        digest = zlib.crc32(whole.encode("utf-8", "surrogatepass"))
        return Random(f"{self._seed}/{seed}/{digest}")

    def _prose(self, random: Random, most: int) -> list[str]:
        length = self._lengths.draw(random)
        found: list[str] = []
        while len(found) < min(length, most):
            found += random.choice(self._sentences)
        return [*found[: length - 1], "."] if length <= most else found[:most]


def read_recorded(path: Path) -> list[Recorded]:
    """Return the replies of a JSONL file with `match`, `reply` and, optionally, `tokens`.

    Raises:
        ValueError: a line is not such an object.
        OSError: the file cannot be read.
    """
    found = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(Recorded(**json.loads(line)))
        except TypeError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    return found


def _sentence(random: Random) -> str:
    words = random.choices(_WORDS, k=random.randint(*_SENTENCE_WORDS))
    return " " + " ".join(words).capitalize() + "."


def _fitted(found: list[str], tokens: int | None) -> list[str]:
    """Return the same text in `tokens` tokens, as far as that goes."""
    if tokens is None or tokens >= len(found):
        return found
    head, tail = found[: tokens - 1], found[tokens - 1 :]
    return [*head, "".join(tail)]
