"""The spans of one call of an engine: the call, its first token, its decoding.

Attributes by OpenTelemetry's conventions for generative AI (gen_ai v0.1.0, of status
"development"). Never a text: of the call its limits are told, of the reply its figures.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from services.runtime import tracing
from services.runtime.calls import ChatCall, Completion, Went
from services.runtime.span import NoSpan, Span


def begin() -> NoSpan:
    """Return the span of a call that is about to be sent."""
    return tracing.child("chat", kind="client")


def end(
    span: NoSpan,
    call: ChatCall,
    went: Went,
    completion: Completion | None,
    *,
    url: str,
    model: str,
    provider: str,
) -> None:
    """Report a call that was left.

    Args:
        span: of the call.
        call: what was asked.
        went: how the stream went.
        completion: how the reply ended, if it did.
        url: of the engine.
        model: that was asked for, or that the engine serves.
        provider: the engine's family.
    """
    if not isinstance(span, Span):
        return
    span.rename(f"chat {model}" if model else "chat")
    address = urlsplit(url)
    span.put(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": provider,
            "gen_ai.output.type": "text",
            "gen_ai.request.model": model or None,
            "gen_ai.request.stream": True,
            "gen_ai.request.max_tokens": call.max_tokens,
            "gen_ai.request.temperature": call.temperature,
            "gen_ai.request.top_p": call.top_p,
            "gen_ai.request.seed": call.seed,
            "server.address": address.hostname,
            "server.port": address.port or {"https": 443}.get(address.scheme, 80),
        }
    )
    _tell_reply(span, went, completion)
    _tell_parts(span, went)
    span.end()


def _tell_reply(span: Span, went: Went, completion: Completion | None) -> None:
    if went.first_at is not None:
        span.put({"gen_ai.response.time_to_first_chunk": went.first_at - went.started_at})
    if completion:
        usage = completion.usage
        span.put(
            {
                "gen_ai.response.model": completion.model or None,
                "gen_ai.response.finish_reasons": [completion.finish_reason],
                "gen_ai.usage.input_tokens": usage.prompt_tokens,
                "gen_ai.usage.output_tokens": usage.generated_tokens,
                "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
            }
        )
    if went.failure:
        span.fail(went.failure.code)
    elif not completion:
        span.note(left=True)


def _tell_parts(span: Span, went: Went) -> None:
    """Report what the call consists of: waiting for the first token, and the tokens after it."""
    ended_at = tracing.now()
    began_at = tracing.since(went.started_at)
    first_at = ended_at if went.first_at is None else tracing.since(went.first_at)
    span.start_at = began_at
    prefill = Span(span.trace, "first token", parent=span.span_id, start_at=began_at)
    if went.failure and went.first_at is None:
        prefill.fail(went.failure.code)
    prefill.end(first_at)
    if went.first_at is not None:
        decode = Span(span.trace, "decode", parent=span.span_id, start_at=first_at)
        decode.note(chunks=went.tokens)
        if went.failure:
            decode.fail(went.failure.code)
        decode.end(ended_at)
