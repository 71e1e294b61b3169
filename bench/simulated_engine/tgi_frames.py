"""TGI's answers: bodies and events; pure. The forms are those of TGI 3.3.7."""

from __future__ import annotations

import time
from typing import Any, Final

import orjson

from bench.simulated_engine.jobs import Ending, Job

Json = dict[str, Any]
FINGERPRINT: Final = "3.3.6-dev0-native"
NATIVE_ENDING: Final[dict[Ending, str]] = {
    "length": "length",
    "eos": "eos_token",
    "stop": "stop_sequence",
}
CHAT_ENDING: Final[dict[Ending, str]] = NATIVE_ENDING | {"eos": "stop"}


def event(payload: object) -> bytes:
    """Return a server-sent event."""
    return b"data: " + orjson.dumps(payload) + b"\n\n"


DONE: Final = b"data: [DONE]\n\n"


def stream_error(message: str, error_type: str) -> bytes:
    """Return an error within a native stream."""
    return event({"error": message, "error_type": error_type})


def chat_stream_error(message: str) -> bytes:
    """Return an error within a chat stream: whatever it is, it says 422."""
    return event({"error": {"message": message, "http_status_code": 422}})


def logprob(token: int) -> float:
    """Return a made-up logarithm of a probability."""
    return -(token % 997) / 499


def usage(prompt: int, completion: int) -> Json:
    """Return the usage."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


class ChatFrames:
    """The events of /v1/chat/completions.

    Args:
        job: the reply.
        model: what is echoed.
        include_usage: whether a last event tells the usage.
        logprobs: whether each token's is told.
    """

    def __init__(self, job: Job, model: str, *, include_usage: bool, logprobs: bool) -> None:
        self._job = job
        self._model = model
        self._include_usage = include_usage
        self._logprobs = logprobs
        head, tail = orjson.dumps(self._chunk([_choice("\x00")])).split(b'"\\u0000"')
        self._head, self._tail = b"data: " + head, tail + b"\n\n"

    def first(self) -> bytes:
        """Nothing comes before the first token."""
        return b""

    def token(self, index: int, *, last: bool) -> bytes:
        """Return the event of a token."""
        piece = self._job.pieces[index]
        if not last and not self._logprobs:
            return self._head + orjson.dumps(piece) + self._tail
        choice = _choice(piece)
        if last:
            choice["finish_reason"] = CHAT_ENDING[self._job.ending]
        if self._logprobs:
            choice["logprobs"] = chat_logprobs(self._job, index, index + 1)
        return event(self._chunk([choice]))

    def end(self) -> bytes:
        """Return what comes after the last token."""
        if not self._include_usage:
            return DONE
        told = usage(self._job.prompt_tokens, self._job.sequence.generated)
        return event(self._chunk([]) | {"usage": told}) + DONE

    def broken(self) -> bytes:
        """Return the event of a failure in the middle."""
        return chat_stream_error("Request failed during generation: simulated failure") + DONE

    def _chunk(self, choices: list[Json]) -> Json:
        return {
            "object": "chat.completion.chunk",
            "id": "",
            "created": int(time.time()),
            "model": self._model,
            "system_fingerprint": FINGERPRINT,
            "choices": choices,
            "usage": None,
        }


def _choice(piece: str) -> Json:
    delta = {"role": "assistant", "content": piece}
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}


def chat_logprobs(job: Job, begin: int, end: int) -> Json:
    """Return the logprobs of some tokens."""
    return {
        "content": [
            {"token": job.pieces[index], "logprob": logprob(job.ids[index]), "top_logprobs": []}
            for index in range(begin, end)
        ]
    }


def chat_body(job: Job, model: str, *, logprobs: bool) -> Json:
    """Return the body of a whole chat completion."""
    message = {"role": "assistant", "content": job.text}
    told = chat_logprobs(job, 0, job.sequence.generated) if logprobs else None
    choice = {
        "index": 0,
        "message": message,
        "logprobs": told,
        "finish_reason": CHAT_ENDING[job.ending],
    }
    return {
        "object": "chat.completion",
        "id": "",
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": FINGERPRINT,
        "choices": [choice],
        "usage": usage(job.prompt_tokens, job.sequence.generated),
    }


def token_of(job: Job, index: int) -> Json:
    """Return a token as native answers tell it."""
    number = job.ids[index]
    special = job.pieces[index] == ""
    text = "</s>" if special else job.pieces[index]
    return {"id": number, "text": text, "logprob": logprob(number), "special": special}


class NativeFrames:
    """The events of /generate_stream.

    Args:
        job: the reply.
        details: whether the last event tells them.
        seed: that was asked for, if any.
        before: what stands before the text in `generated_text`.
    """

    def __init__(self, job: Job, *, details: bool, seed: int | None, before: str) -> None:
        self._job = job
        self._details = details
        self._seed = seed
        self._before = before

    def first(self) -> bytes:
        """Nothing comes before the first token."""
        return b""

    def token(self, index: int, *, last: bool) -> bytes:
        """Return the event of a token."""
        return event(
            {
                "index": index + 1,
                "token": token_of(self._job, index),
                "generated_text": self._before + self._job.text if last else None,
                "details": self._told() if last and self._details else None,
            }
        )

    def end(self) -> bytes:
        """Nothing comes after the last token."""
        return b""

    def broken(self) -> bytes:
        """Return the event of a failure in the middle."""
        return stream_error("Request failed during generation: simulated failure", "generation")

    def _told(self) -> Json:
        return {
            "finish_reason": NATIVE_ENDING[self._job.ending],
            "generated_tokens": self._job.sequence.generated,
            "seed": self._seed,
            "input_length": self._job.prompt_tokens,
        }


def native_body(job: Job, *, details: bool, prefill: bool, seed: int | None, before: str) -> Json:
    """Return the body of /generate."""
    body: Json = {"generated_text": before + job.text}
    if details:
        count = job.sequence.generated
        body["details"] = {
            "finish_reason": NATIVE_ENDING[job.ending],
            "generated_tokens": count,
            "seed": seed,
            "prefill": _prefill(job) if prefill else [],
            "tokens": [token_of(job, index) for index in range(count)],
        }
    return body


def _prefill(job: Job) -> list[Json]:
    return [
        {"id": number, "text": piece, "logprob": logprob(number) if index else None}
        for index, (number, piece) in enumerate(
            zip(job.sequence.prompt, job.ask.prompt, strict=True)
        )
    ]


class CompletionFrames:
    """The events of /v1/completions, for one of its prompts."""

    def __init__(self, job: Job, model: str, index: int) -> None:
        self._job = job
        self._model = model
        self._index = index

    def first(self) -> bytes:
        """Nothing comes before the first token."""
        return b""

    def token(self, index: int, *, last: bool) -> bytes:
        """Return the event of a token."""
        choice = {
            "index": self._index,
            "text": self._job.pieces[index],
            "logprobs": None,
            "finish_reason": NATIVE_ENDING[self._job.ending] if last else "",
        }
        told = usage(self._job.prompt_tokens, self._job.sequence.generated) if last else None
        return event(completion(self._model, [choice]) | {"usage": told})

    def broken(self) -> bytes:
        """Return the event of a failure in the middle."""
        return chat_stream_error("Request failed during generation: simulated failure")


def completion(model: str, choices: list[Json]) -> Json:
    """Return the frame of a completion."""
    return {
        "object": "text_completion",
        "id": "",
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": FINGERPRINT,
        "choices": choices,
    }


def completion_body(jobs: list[Job], model: str) -> Json:
    """Return the body of /v1/completions."""
    choices = [
        {
            "index": index,
            "text": job.text,
            "logprobs": None,
            "finish_reason": CHAT_ENDING[job.ending],
        }
        for index, job in enumerate(jobs)
    ]
    prompt = sum(job.prompt_tokens for job in jobs)
    generated = sum(job.sequence.generated for job in jobs)
    return completion(model, choices) | {"usage": usage(prompt, generated)}
