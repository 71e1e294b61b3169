"""The AsyncAPI 3 document: channels, operations by role, messages by reference.

The NATS binding (0.1.0) knows nothing but an operation's queue group, so what concerns
JetStream stands in `x-nats-jetstream` extensions.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Final

import yaml

from proto.channels import CHANNELS, MESSAGES, PARAMETERS, Channel, Message, Role, is_fact
from proto.names import PREFIX, STREAM_SUBJECTS, Header, Stream

Json = dict[str, object]

SCHEMA_FORMAT: Final = "application/schema+json;version=draft-2020-12"
_STR_TAG: Final = "tag:yaml.org,2002:str"
_WORK_QUEUES: Final = (Stream.REQUESTS, Stream.NODES)
_VERSION: Final = PREFIX.rpartition(".")[2]

_DESCRIPTION: Final = """\
One prompt becomes a graph of nodes that are decoded in parallel. Clients publish a request, then
read its facts, which can be replayed, and its previews, which can be lost.

Facts and work are kept by JetStream (`x-nats-jetstream` names the stream); the rest is core NATS.
Publish into a stream with an ack, and repeat until it comes: a subject takes a message once.
"""

_HEADERS: Final[dict[Header, Json]] = {
    Header.TRACEPARENT: {
        "type": "string",
        "description": "W3C Trace Context, passed on from the request.",
    },
    Header.MSG_ID: {
        "type": "string",
        "description": "Optional, and then random: what has an id that JetStream has seen within "
        "two minutes is acked as a duplicate and not stored, whoever sent the other one.",
    },
    Header.EXPECTED_LAST_SUBJECT_SEQUENCE: {
        "type": "string",
        "const": "0",
        "description": "The subject must hold nothing yet: the first fact wins.",
    },
}

#: Who may do what is in docs/security.md: it is said by NATS's permissions, not by a scheme.
_SECURITY: Final[Json] = {
    "credentials": {
        "type": "asymmetricEncryption",
        "description": "A NATS credentials file (a user's JWT, and its nkey that signs the "
        "server's challenge), by `skelgraph auth`. It makes a client a service, an operator or a "
        "tenant; a tenant sees its own requests only.",
    },
    "certificate": {
        "type": "X509",
        "description": "Mutual TLS, where the deployment wants it, beside the credentials.",
    },
}

_SERVER: Final[Json] = {
    "host": "{host}",
    "protocol": "nats",
    "description": "Any server of the deployment. On one machine it may want no credentials.",
    "variables": {"host": {"description": "Name and port.", "default": "127.0.0.1:4222"}},
    "security": [{"$ref": f"#/components/securitySchemes/{name}"} for name in _SECURITY],
}


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and repeats instead of using anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def text(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar(_STR_TAG, data, style="|" if "\n" in data else None)


_Dumper.add_representer(str, _Dumper.text)


def asyncapi_yaml() -> str:
    """Return the AsyncAPI document."""
    document: Json = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Skelgraph",
            "version": _VERSION,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0"},
        },
        "servers": {"nats": _SERVER},
        "defaultContentType": "application/json",
        "channels": _channels(),
        "operations": _operations(),
        "components": {
            "messages": {message.__name__: _message(message) for message in MESSAGES},
            "parameters": {name: _parameter(name) for name in PARAMETERS},
            "schemas": _header_schemas(),
            "securitySchemes": _SECURITY,
        },
    }
    return dump_yaml(document)


def dump_yaml(document: Json) -> str:
    """Return `document` as YAML that people can read."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def first_line(message: type[object]) -> str:
    """Return what `message` says of itself, in a line."""
    return (inspect.getdoc(message) or "").split("\n")[0]


# --- channels -------------------------------------------------------------------------


def _channels() -> Json:
    channels: Json = {}
    for channel in CHANNELS:
        channels[channel.name] = _channel(channel, channel.address)
        if channel.said_address:
            channels[_said(channel)] = _channel(channel, channel.said_address) | {
                "summary": f"What is stored under `{channel.address}`, said by the server on core "
                "NATS; may be lost. Tenants hear facts here."
            }
        if channel.tenants and channel.replies:
            channels[_of_tenant(channel)] = _channel(channel, channel.tenant_address or "") | {
                "summary": f"Where NATS maps a tenant's `{channel.address}` to."
            }
        if channel.replies:
            channels[_reply(channel)] = {
                "address": None,
                "summary": f"Replies to `{channel.name}`, on the inbox that the asker names.",
                "messages": _message_refs(channel.replies),
            }
    return channels


def _channel(channel: Channel, address: str) -> Json:
    names = re.findall(r"{(\w+)}", address)
    described: Json = {
        "address": address,
        "summary": channel.summary,
        "messages": _message_refs(channel.messages),
        "parameters": {name: {"$ref": f"#/components/parameters/{name}"} for name in names},
    }
    if channel.stream and address == channel.address:
        described["x-nats-jetstream"] = _jetstream(channel, channel.stream)
    return described


def _parameter(name: str) -> Json:
    description, values = PARAMETERS[name]
    return {"description": description, **({"enum": [*map(str, values)]} if values else {})}


def _jetstream(channel: Channel, stream: Stream) -> Json:
    facts: Json = {"stream": stream.value, "subjects": [STREAM_SUBJECTS[stream]]}
    if stream in _WORK_QUEUES:
        # One message a subject: work is unique while it is queued or running.
        unique: Json = {"max_msgs_per_subject": 1, "discard_new_per_subject": True}
        facts |= {"retention": "workqueue", "discard": "new", **unique}
    else:
        discard = "old" if stream is Stream.DEAD else "new"
        facts |= {"retention": "limits", "discard": discard}
    if channel.consumers:
        facts["consumers"] = list(channel.consumers)
    return facts


def _message_refs(messages: tuple[Message, ...]) -> Json:
    return {
        message.__name__: {"$ref": f"#/components/messages/{message.__name__}"}
        for message in messages
    }


def _reply(channel: Channel) -> str:
    return f"{channel.name}Reply"


def _said(channel: Channel) -> str:
    return f"{channel.name}Said"


def _of_tenant(channel: Channel) -> str:
    return f"{channel.name}OfTenant"


# --- operations -----------------------------------------------------------------------


def _operations() -> Json:
    operations: Json = {}
    for channel in CHANNELS:
        for role, messages in channel.sent.items():
            operations[f"{role}.send.{channel.name}"] = _operation(
                channel, channel.name, role, "send", messages
            )
        for name, role in _readers(channel):
            operations[f"{role}.receive.{name}"] = _operation(
                channel, name, role, "receive", channel.messages
            )
    return operations


def _readers(channel: Channel) -> Iterator[tuple[str, Role]]:
    """Yield who reads, each with the name of the channel in the document."""
    for role in channel.read:
        yield channel.name, role
        if channel.tenants and channel.replies:
            yield _of_tenant(channel), role
    if channel.said_address:
        yield _said(channel), Role.CLIENT


def _operation(
    channel: Channel, name: str, role: Role, action: str, messages: tuple[Message, ...]
) -> Json:
    described: Json = {
        "action": action,
        "channel": {"$ref": f"#/channels/{name}"},
        "summary": channel.summary,
        "tags": [{"name": role.value}],
        "messages": _refs_in(name, messages),
    }
    if channel.replies:
        described["reply"] = {
            "channel": {"$ref": f"#/channels/{_reply(channel)}"},
            "messages": _refs_in(_reply(channel), channel.replies),
        }
    if channel.queue and action == "receive":
        described["bindings"] = {"nats": {"queue": channel.queue, "bindingVersion": "0.1.0"}}
    return described


def _refs_in(channel: str, messages: tuple[Message, ...]) -> list[Json]:
    return [{"$ref": f"#/channels/{channel}/messages/{message.__name__}"} for message in messages]


# --- messages -------------------------------------------------------------------------


def _message(message: Message) -> Json:
    described: Json = {"name": message.__name__, "summary": first_line(message)}
    headers = _headers_of(message)
    if headers:
        described["headers"] = {"$ref": f"#/components/schemas/{headers}"}
    reference = {"$ref": f"./{message.__name__}.json"}
    return described | {"payload": {"schemaFormat": SCHEMA_FORMAT, "schema": reference}}


def _headers_of(message: Message) -> str | None:
    channel = next((one for one in CHANNELS if message in one.messages), None)
    if channel is None or channel.stream is None:
        return None
    return "FactHeaders" if is_fact(channel) else "WorkHeaders"


def _header_schemas() -> Json:
    work = (Header.TRACEPARENT, Header.MSG_ID)
    return {
        "WorkHeaders": _header_schema(work, required=[]),
        "FactHeaders": _header_schema(
            (*work, Header.EXPECTED_LAST_SUBJECT_SEQUENCE),
            required=[Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value],
        ),
    }


def _header_schema(headers: tuple[Header, ...], *, required: list[str]) -> Json:
    schema: Json = {
        "type": "object",
        "properties": {header.value: _HEADERS[header] for header in headers},
    }
    return schema | ({"required": required} if required else {})
