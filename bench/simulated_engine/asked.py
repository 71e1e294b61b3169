"""The bodies of requests, as far as the simulated engine reads them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

Json = dict[str, Any]
UInt = Annotated[StrictInt, Field(ge=0)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore")


class TextPart(_Body):
    """A part of a message; only text is simulated."""

    type: Literal["text"]
    text: StrictStr


class Message(_Body):
    """A turn of a chat."""

    role: StrictStr
    content: StrictStr | list[TextPart] | None = None

    @property
    def text(self) -> str:
        """The whole content."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(_Body):
    """What a stream is to hold besides."""

    include_usage: StrictBool = False


class TgiGrammar(_Body):
    """A grammar in TGI's form."""

    type: Literal["json", "json_object", "regex", "json_schema"]
    value: Any


class Generate(_Body):
    """What /generate, /generate_stream and / take."""

    inputs: StrictStr
    parameters: GenerateParameters | None = None
    stream: StrictBool = False


class GenerateParameters(_Body):
    """Parameters of native requests."""

    adapter_id: StrictStr | None = None
    best_of: UInt | None = None
    decoder_input_details: StrictBool = False
    details: StrictBool = False
    do_sample: StrictBool = False
    frequency_penalty: float | None = None
    grammar: TgiGrammar | None = None
    max_new_tokens: UInt | None = None
    repetition_penalty: float | None = None
    return_full_text: StrictBool | None = None
    seed: UInt | None = None
    stop: list[StrictStr] = []
    temperature: float | None = None
    top_k: StrictInt | None = None
    top_n_tokens: UInt | None = None
    top_p: float | None = None
    truncate: UInt | None = None
    typical_p: float | None = None
    watermark: StrictBool = False


class TgiChat(_Body):
    """What TGI's /v1/chat/completions takes; `n` and `logit_bias` are not read."""

    messages: list[Message]
    model: StrictStr | None = None
    max_tokens: UInt | None = Field(default=None)
    max_completion_tokens: UInt | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: UInt | None = None
    stop: list[StrictStr] | None = None
    tools: list[Json] | None = None
    response_format: TgiGrammar | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: StrictBool | None = None
    stream: StrictBool = False
    stream_options: StreamOptions | None = None


class TgiCompletion(_Body):
    """What TGI's /v1/completions takes."""

    prompt: StrictStr | list[StrictStr]
    model: StrictStr | None = None
    max_tokens: UInt | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: UInt | None = None
    stop: list[StrictStr] | None = None
    stream: StrictBool = False


class StructuredOutputs(_Body):
    """vLLM's grammar field since 0.11."""

    regex: StrictStr | None = None
    json_: Json | StrictStr | None = Field(default=None, alias="json")
    choice: list[StrictStr] | None = None
    grammar: StrictStr | None = None
    json_object: StrictBool | None = None


class OpenAiFormat(_Body):
    """OpenAI's `response_format`."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Json | None = None


class VllmChat(_Body):
    """What vLLM's /v1/chat/completions takes."""

    messages: list[Message]
    model: StrictStr | None = None
    max_tokens: StrictInt | None = None
    max_completion_tokens: StrictInt | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: StrictInt | None = None
    stop: StrictStr | list[StrictStr] | None = None
    n: StrictInt | None = 1
    logprobs: StrictBool | None = None
    stream: StrictBool | None = False
    stream_options: StreamOptions | None = None
    response_format: OpenAiFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_regex: StrictStr | None = None
    guided_json: Json | StrictStr | None = None
    guided_choice: list[StrictStr] | None = None
    regex: StrictStr | None = None
    grammar: StrictStr | None = None
    ignore_eos: StrictBool = False
    priority: StrictInt = 0
