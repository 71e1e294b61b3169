"""From the bodies that TGI takes to replies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from bench.simulated_engine import grammars, tokens
from bench.simulated_engine.asked import (
    Generate,
    GenerateParameters,
    TgiChat,
    TgiCompletion,
    TgiGrammar,
)
from bench.simulated_engine.author import Turn
from bench.simulated_engine.core import Core, Overloaded
from bench.simulated_engine.exchange import Exchange
from bench.simulated_engine.faults import Fault
from bench.simulated_engine.jobs import Ask, Job
from bench.simulated_engine.tgi_checks import Invalid, Limits, check, new_tokens

Body = TypeVar("Body", bound=BaseModel)


class Refusal(Exception):
    """An error of TGI's.

    Args:
        message: what it says.
        error_type: its kind.
    """

    def __init__(self, message: str, error_type: str) -> None:
        super().__init__(message)
        self.message = message
        self.error_type = error_type


class Unreadable(Exception):
    """A body that axum does not take: a status and plain text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class TgiJobs:
    """Makes replies of what is asked, or refuses.

    Args:
        core: the engine.
        limits: of requests.
    """

    def __init__(self, core: Core, limits: Limits) -> None:
        self._core = core
        self._limits = limits

    def native(self, asked: Generate, parameters: GenerateParameters, *, streams: bool) -> Job:
        """Return the reply to a native request, or raise :class:`Refusal`."""
        turn = Turn("user", asked.inputs)
        return self._job([turn], tokens.pieces(asked.inputs), parameters, streams=streams)

    def chat(self, asked: TgiChat) -> Job:
        """Return the reply to a chat, or raise :class:`Refusal`."""
        if asked.response_format and asked.tools is not None:
            raise Refusal("Tool error: Grammar and tools are mutually exclusive", "tool_error")
        if asked.tools:
            raise Refusal("Tool error: tools are not simulated", "tool_error")
        turns = turns_of(asked)
        parameters = GenerateParameters(
            max_new_tokens=asked.max_tokens or asked.max_completion_tokens,
            do_sample=asked.temperature != 0,
            # On this route 0 means greedy.
            temperature=asked.temperature or None,
            top_p=asked.top_p,
            seed=asked.seed,
            stop=asked.stop or [],
            frequency_penalty=asked.frequency_penalty,
            grammar=asked.response_format,
            repetition_penalty=None
            if asked.presence_penalty is None
            else asked.presence_penalty + 2.0,
        )
        return self._job(turns, tokens.pieces(template(turns)), parameters, streams=asked.stream)

    def completion(self, asked: TgiCompletion, prompt: str) -> Job:
        """Return the reply to one prompt, or raise :class:`Refusal`."""
        parameters = GenerateParameters(
            max_new_tokens=asked.max_tokens,
            temperature=asked.temperature or None,
            top_p=asked.top_p,
            seed=asked.seed,
            stop=asked.stop or [],
        )
        turn = Turn("user", prompt)
        return self._job([turn], tokens.pieces(prompt), parameters, streams=asked.stream)

    def _job(
        self,
        turns: Sequence[Turn],
        prompt: Sequence[str],
        parameters: GenerateParameters,
        *,
        streams: bool,
    ) -> Job:
        inputs = "".join(prompt)
        try:
            check(parameters, inputs, self._limits, streams=streams)
            if parameters.truncate:
                prompt = prompt[-parameters.truncate :]
            limit = new_tokens(len(prompt), parameters.max_new_tokens, self._limits)
            constraint = _constraint(parameters.grammar)
        except Invalid as invalid:
            raise Refusal(f"Input validation error: {invalid}", "validation") from None
        ask = Ask(
            turns=turns,
            prompt=prompt,
            max_new_tokens=limit,
            stop=parameters.stop,
            seed=parameters.seed,
            constraint=constraint,
        )
        return self._core.compose(ask)


@contextmanager
def permit(core: Core, fault: Fault | None) -> Iterator[None]:
    """Hold one of TGI's permits within the block.

    Raises:
        Refusal: there is none left, or the fault wants it so.
    """
    refused = fault is not None and fault.kind == "refuse"
    try:
        with core.permit(0 if refused else core.options.max_concurrent_requests):
            yield
    except Overloaded:
        raise Refusal("Model is overloaded", "overloaded") from None


def template(turns: Sequence[Turn]) -> str:
    """Return the chat as one text, in a form like Llama 3's."""
    parts = [f"<|{turn.role}|>\n{turn.content}<|end|>\n" for turn in turns]
    return "".join([*parts, "<|assistant|>\n"])


def turns_of(asked: TgiChat) -> list[Turn]:
    """Return the chat.

    Raises:
        Refusal: it is empty.
    """
    if not asked.messages:
        raise Refusal("Template error: no messages", "validation")
    return [Turn(message.role, message.text) for message in asked.messages]


def simple_tokens(text: str) -> list[dict[str, object]]:
    """Return the tokens of `text` with their places."""
    found: list[dict[str, object]] = []
    start = 0
    for piece in tokens.pieces(text):
        stop = start + len(piece)
        found.append({"id": tokens.token_id(piece), "text": piece, "start": start, "stop": stop})
        start = stop
    return found


def _constraint(grammar: TgiGrammar | None) -> grammars.Constraint | None:
    if grammar is None:
        return None
    try:
        if grammar.type == "regex":
            return grammars.regex(grammar.value)
        schema = grammar.value
        if grammar.type == "json_schema":
            schema = schema.get("schema") if isinstance(schema, dict) else None
        return grammars.json_schema(schema, needs_properties=True)
    except grammars.Unsupported as unsupported:
        raise Invalid(f"grammar is not valid: {unsupported}") from None


async def read(exchange: Exchange, kind: type[Body]) -> Body:
    """Return the body.

    Raises:
        Unreadable: axum would not take it.
    """
    content_type = exchange.headers.get(b"content-type", b"").lower()
    body = await exchange.body()
    if not content_type.startswith(b"application/json"):
        raise Unreadable(415, "Expected request with `Content-Type: application/json`")
    try:
        parsed = orjson.loads(body)
    except ValueError as error:
        raise Unreadable(400, f"Failed to parse the request body as JSON: {error}") from None
    try:
        return kind.model_validate(parsed)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        text = "Failed to deserialize the JSON body into the target type"
        raise Unreadable(422, f"{text}: {where}: {first['msg']}") from None
