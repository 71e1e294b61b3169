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
    """A reply to give where `match` occurs in the last message, and `within` in any.

    Args:
        match: the text to look for.
        reply: what to say, or its pieces of text, one after the other.
        tokens: how many tokens it counts, or each of its pieces; by its text if None.
        within: a text that must occur somewhere in the chat too.
    """

    match: str
    reply: str | Sequence[str]
    tokens: int | Sequence[int] | None = None
    within: str = ""

    def said(self) -> list[str]:
        """Return the reply's tokens.

        Raises:
            ValueError: there are not as many numbers of tokens as pieces.
        """
        if isinstance(self.reply, str):
            number = None if isinstance(self.tokens, Sequence) else self.tokens
            return _fitted(pieces(self.reply), number)
        counts = self.tokens if isinstance(self.tokens, Sequence) else [None] * len(self.reply)
        fitted = (_fitted(pieces(t), n) for t, n in zip(self.reply, counts, strict=True))
        return [token for part in fitted for token in part]


class _Replies:
    """Recorded replies, the first that matches first.

    Few texts are looked for in a chat, however many replies there are: each `within` once.
    """

    def __init__(self, recorded: Sequence[Recorded]) -> None:
        self._by_within: dict[str, list[tuple[int, Recorded]]] = {}
        for place, one in enumerate(recorded):
            self._by_within.setdefault(one.within, []).append((place, one))

    def find(self, turns: Sequence[Turn]) -> Recorded | None:
        last, whole = turns[-1].content, "\x00".join(turn.content for turn in turns)
        found: tuple[int, Recorded] | None = None
        for within, replies in self._by_within.items():
            if within in whole:
                first = next((one for one in replies if one[1].match in last), None)
                found = min(filter(None, (found, first)), key=lambda one: one[0], default=None)
        return found[1] if found else None


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
        self._replies = _Replies(recorded)
        made = Random(f"sentences/{seed}")
        self._sentences = [pieces(_sentence(made)) for _ in range(_SENTENCES)]

    def write(self, turns: Sequence[Turn], seed: int | None, most: int) -> list[str]:
        """Return the tokens of the reply to `turns`.

        Args:
            turns: the chat.
            seed: of the request.
            most: prose ends after so many tokens, though it may be meant to be longer.
        """
        if recorded := self._replies.find(turns):
            return recorded.said()
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
    """Return the replies of a JSONL file with the fields of `Recorded`.

    Raises:
        ValueError: a line is not such an object.
        OSError: the file cannot be read.
    """
    found = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            read = Recorded(**json.loads(line))
            read.said()
            found.append(read)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    return found


def _sentence(random: Random) -> str:
    words = random.choices(_WORDS, k=random.randint(*_SENTENCE_WORDS))
    return " " + " ".join(words).capitalize() + "."


def _fitted(found: list[str], tokens: int | None) -> list[str]:
    """Return the same text in `tokens` tokens, as far as its characters go."""
    if tokens is None:
        return found
    if tokens < len(found):
        return [*found[: tokens - 1], "".join(found[tokens - 1 :])]
    while (missing := tokens - len(found)) and any(len(piece) > 1 for piece in found):
        found = _split(found, missing)
    return found


def _split(found: list[str], most: int) -> list[str]:
    """Return the pieces with the first `most` of more than one character halved."""
    halved: list[str] = []
    for piece in found:
        middle = len(piece) // 2 if most else 0
        halved += [piece[:middle], piece[middle:]] if middle else [piece]
        most -= middle > 0
    return halved
