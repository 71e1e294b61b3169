"""From what is asked to what will be said: a reply's tokens and why they end; pure."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Literal

from bench.simulated_engine import tokens
from bench.simulated_engine.author import Author, Turn
from bench.simulated_engine.grammars import Constraint
from bench.simulated_engine.sequences import Sequence

Ending = Literal["length", "eos", "stop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request in no engine's own terms.

    Args:
        turns: the chat, or one turn with the bare prompt.
        prompt: the tokens of it.
        max_new_tokens: the limit that the client set or that the engine sets for it.
        stop: texts that end the reply.
        keeps_stop: whether the reply holds the stop text (TGI), or ends before it (vLLM).
        seed: of the request.
        constraint: what the reply must match.
        priority: in the queue.
        ignore_eos: go on to the limit.
    """

    turns: Seq[Turn]
    prompt: Seq[str]
    max_new_tokens: int
    stop: Seq[str] = ()
    keeps_stop: bool = True
    seed: int | None = None
    constraint: Constraint | None = None
    priority: int = 0
    ignore_eos: bool = False


class Job:
    """A reply under way.

    Attributes:
        pieces: the tokens' texts; that of the end token is empty.
        ids: the tokens.
        sequence: the same for the batch.
    """

    def __init__(self, ask: Ask, pieces: Seq[str], ending: Ending) -> None:
        self.ask = ask
        self.pieces = [*pieces, ""] if ending == "eos" else list(pieces)
        self.ids = tokens.token_ids(self.pieces)
        if ending == "eos":
            self.ids[-1] = tokens.EOS
        self._ending = ending
        self.sequence = Sequence(
            prompt=tokens.token_ids(ask.prompt),
            reply=self.ids,
            max_new_tokens=max(ask.max_new_tokens, len(self.ids)),
            priority=ask.priority,
        )

    @property
    def ending(self) -> Ending:
        """Why it ends where it does."""
        return "length" if self.sequence.cut else self._ending

    @property
    def text(self) -> str:
        """What was said so far."""
        return "".join(self.pieces[: self.sequence.generated])

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self.ask.prompt)


def compose(ask: Ask, author: Author) -> Job:
    """Return the reply to `ask`."""
    written = author.write(ask.turns, ask.seed, ask.max_new_tokens + 1)
    if ask.constraint:
        written = ask.constraint.fit(written, author.random(ask.turns, ask.seed))
    while ask.ignore_eos and len(written) < ask.max_new_tokens:
        written += written
    cut, stopped = _stop(written, ask)
    if len(cut) > ask.max_new_tokens or (len(cut) == ask.max_new_tokens and not stopped):
        return Job(ask, cut[: ask.max_new_tokens], "length")
    return Job(ask, cut, "stop" if stopped else "eos")


def _stop(written: Seq[str], ask: Ask) -> tuple[list[str], bool]:
    """Return the tokens up to the first stop text, and whether there was one."""
    found = list(written)
    if not ask.stop:
        return found, False
    text = ""
    for number, piece in enumerate(found):
        text += piece
        where = [text.find(stop) for stop in ask.stop if stop and stop in text]
        if where:
            kept = found[: number + 1]
            return (kept if ask.keeps_stop else _before(kept, min(where))), True
    return found, False


def _before(kept: list[str], chars: int) -> list[str]:
    """Return the tokens of the first `chars` characters; as many tokens as were computed."""
    text = "".join(kept)[:chars]
    found = []
    for piece in kept:
        found.append(text[: len(piece)])
        text = text[len(piece) :]
    return found
