"""Answers in OpenAI's form as vLLM, SGLang and llama.cpp give them; pure."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

import orjson

from bench.simulated_engine.jobs import Ending, Job
from bench.simulated_engine.options import Family
from bench.simulated_engine.tgi_frames import DONE, event

Json = dict[str, Any]
_ENDING: Final[dict[Ending, str]] = {"length": "length", "eos": "stop", "stop": "stop"}


def error(message: str, kind: str, status: int) -> Json:
    """Return the body of an error."""
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What an answer tells besides the text.

    Args:
        number: of the request.
        model: its name.
        family: whose form it is.
        include_usage: whether the stream ends with the usage.
        cached: whether the usage tells what came from the cache.
        logprobs: whether each token's is told.
    """

    number: int
    model: str
    family: Family
    include_usage: bool = False
    cached: bool = True
    logprobs: bool = False


def usage(job: Job, told: Told) -> Json:
    """Return the usage of a reply."""
    generated = job.sequence.generated
    cached = {"cached_tokens": job.sequence.cached_tokens} if told.cached else None
    return {
        "prompt_tokens": job.prompt_tokens,
        "total_tokens": job.prompt_tokens + generated,
        "completion_tokens": generated,
        "prompt_tokens_details": cached,
    }


class OpenAiFrames:
    """The events of /v1/chat/completions."""

    def __init__(self, job: Job, told: Told) -> None:
        self._job = job
        self._told = told
        head, tail = orjson.dumps(self._chunk([_choice({"content": "\x00"})])).split(b'"\\u0000"')
        self._head, self._tail = b"data: " + head, tail + b"\n\n"

    def first(self) -> bytes:
        """Return the event of the role."""
        return event(self._chunk([_choice({"role": "assistant", "content": ""})]))

    def token(self, index: int, *, last: bool) -> bytes:
        """Return the event of a token."""
        piece = self._job.pieces[index]
        if not last and not self._told.logprobs:
            return self._head + orjson.dumps(piece) + self._tail
        choice = _choice({"content": piece})
        if self._told.logprobs:
            choice["logprobs"] = _logprobs(self._job, index)
        if last:
            choice |= {"finish_reason": _ENDING[self._job.ending], "stop_reason": None}
        timings = self._timings() if last and not self._told.include_usage else {}
        return event(self._chunk([choice]) | timings)

    def end(self) -> bytes:
        """Return what comes after the last token."""
        if not self._told.include_usage:
            return DONE
        told = {"usage": usage(self._job, self._told)}
        return event(self._chunk([]) | told | self._timings()) + DONE

    def broken(self) -> bytes:
        """Return the event of a failure in the middle."""
        return event(error("simulated failure", "InternalServerError", 500)) + DONE

    def _chunk(self, choices: list[Json]) -> Json:
        return {
            "id": f"chatcmpl-{self._told.number:016x}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": self._told.model,
            "choices": choices,
        }

    def _timings(self) -> Json:
        if self._told.family != "llamacpp":
            return {}
        sequence = self._job.sequence
        cached = sequence.cached_tokens
        return {
            "timings": {
                "cache_n": cached,
                "prompt_n": self._job.prompt_tokens - cached,
                "predicted_n": sequence.generated,
            }
        }


def _choice(delta: Json) -> Json:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}


def _logprobs(job: Job, index: int) -> Json:
    value = -(job.ids[index] % 997) / 499
    token = {"token": job.pieces[index], "logprob": value, "bytes": None, "top_logprobs": []}
    return {"content": [token]}


def chat_body(job: Job, told: Told) -> Json:
    """Return the body of a whole chat completion."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": job.text, "tool_calls": []},
        "logprobs": None,
        "finish_reason": _ENDING[job.ending],
        "stop_reason": None,
    }
    return {
        "id": f"chatcmpl-{told.number:016x}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": told.model,
        "choices": [choice],
        "usage": usage(job, told),
    }
