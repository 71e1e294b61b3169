"""From a chat completion to the request that it asks for. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from proto.errors import InvalidRequest
from proto.messages import MAX_QUESTION_CHARS, SubmitRequest, Turn
from services.gateway.calls import checked
from services.gateway.chat_bodies import ChatCompletionRequest, ChatMessage
from services.gateway.errors import Json, UnsupportedParameter
from services.gateway.models import method_of

#: What is known and not supported, with the values that change nothing.
_NEUTRAL: Final[dict[str, tuple[object, ...]]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "moderation": (),
    "prediction": (),
    "presence_penalty": (0,),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "store": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": (),
    "web_search_options": (),
}
#: Hints that cannot change an answer of ours; taken, and not used.
_HINTS: Final = frozenset(
    {
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
    }
)
_ROLES: Final = {"developer": "system"}
_TOOL_ROLES: Final = ("tool", "function")
_JOINT: Final = "\n\n"


def read_chat(body: Json) -> ChatCompletionRequest:
    """Return what a body asks for.

    Raises:
        UnsupportedParameter: it asks for what is not supported; names it.
        UnknownParameter: it has a parameter that does not exist.
        InvalidRequest: a parameter is not valid.
    """
    given = {name: value for name, value in body.items() if value is not None}
    for name, neutral in _NEUTRAL.items():
        if name in given and not any(_same(given[name], one) for one in neutral):
            raise UnsupportedParameter(field=name)
    kept = {name: given[name] for name in given if name not in _HINTS and name not in _NEUTRAL}
    messages = kept.get("messages")
    if isinstance(messages, list):
        kept["messages"] = [_tidy(place, message) for place, message in enumerate(messages)]
    return checked(ChatCompletionRequest, kept)


def submitted(chat: ChatCompletionRequest, owner: str) -> SubmitRequest:
    """Return the command that asks for the answer.

    Raises:
        UnknownModel: there is no such model.
        InvalidRequest: the conversation does not end with a question.
    """
    method = method_of(chat.model)
    context, question = _conversation(chat.messages)
    extension = chat.skelgraph
    return SubmitRequest(
        question=question,
        context=context,
        mode=method.mode,
        adaptive=method.adaptive,
        planner_pool=extension.planner_pool,
        max_nodes=extension.max_nodes,
        sampling=chat.sampling(),
        deadline_s=extension.deadline_s,
        on_failure=extension.on_failure,
        polish=extension.polish,
        owner=owner,
    )


def _same(value: object, neutral: object) -> bool:
    # `True == 1`, but not here; 0.0 is 0.
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)


def _tidy(place: int, message: object) -> object:
    """Return a message without fields that say nothing, as clients send back what they got."""
    if not isinstance(message, dict):
        return message
    if any(message.get("role") == one for one in _TOOL_ROLES):
        raise UnsupportedParameter("tools are not supported", field=f"messages.{place}.role")
    kept = {name: value for name, value in message.items() if value not in (None, [])}
    for name in ("tool_calls", "function_call", "audio"):
        if name in kept:
            raise UnsupportedParameter(field=f"messages.{place}.{name}")
    for part in kept["content"] if isinstance(kept.get("content"), list) else ():
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind != "text":
            raise UnsupportedParameter(f"{kind!r}", field=f"messages.{place}.content")
    return {**kept, "content": kept.get("content", "")}


def _conversation(messages: Sequence[ChatMessage]) -> tuple[tuple[Turn, ...], str]:
    """Return what was said before, and the question.

    Instructions come first, and turns of one speaker that follow each other are one: chat
    templates of many models take nothing else.
    """
    said = [(_ROLES.get(message.role, message.role), _text(message)) for message in messages]
    rules = [text for role, text in said if role == "system" and text]
    turns = [("system", _JOINT.join(rules))] if rules else []
    for role, text in said:
        if role == "system" or not text:
            continue
        if turns and turns[-1][0] == role:
            turns[-1] = (role, turns[-1][1] + _JOINT + text)
        else:
            turns.append((role, text))
    if not turns or turns[-1][0] != "user" or not turns[-1][1].strip():
        raise InvalidRequest("the last message must be the user's, with text", field="messages")
    for _, text in turns:
        if len(text) > MAX_QUESTION_CHARS:
            said_much = f"a turn has {len(text)} characters, at most {MAX_QUESTION_CHARS} are taken"
            raise InvalidRequest(said_much, field="messages")
    context = (Turn.model_validate({"role": role, "content": text}) for role, text in turns[:-1])
    return tuple(context), turns[-1][1]


def _text(message: ChatMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    return "".join(part.text for part in message.content)
