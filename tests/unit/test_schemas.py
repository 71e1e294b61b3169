"""Schemas, AsyncAPI and generated pages say what the code says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.generate import generated as generated_configuration
from docs.generate import services
from proto.asyncapi import asyncapi_yaml
from proto.channels import CHANNELS, MESSAGES
from proto.codec import FACT, PREVIEW
from proto.messages import Sent
from proto.names import Stream, Subjects, request_of
from proto.schemas import ROOT, SCHEMAS, drift, generated, schema_of, write
from services.runtime.settings import ServiceSettings
from services.runtime.streams import StreamLimits, consumer_configs, stream_config
from skelgraph.auth.permissions import imports

DOCUMENT: dict[str, Any] = yaml.safe_load(asyncapi_yaml())
LIMITS = StreamLimits(partitions=1)


# --- drift ----------------------------------------------------------------------------


def test_committed_schemas_are_those_of_the_models() -> None:
    assert drift(generated(), owned=SCHEMAS) == ""


def test_committed_configuration_page_is_that_of_the_settings() -> None:
    assert drift(generated_configuration()) == ""


def test_what_was_written_does_not_drift(tmp_path: Path) -> None:
    write(generated(), tmp_path, owned=SCHEMAS)
    assert drift(generated(), tmp_path, owned=SCHEMAS) == ""


def test_drift_names_file_and_line(tmp_path: Path) -> None:
    files = generated()
    write(files, tmp_path)
    path = tmp_path / SCHEMAS / "StopWork.json"
    path.write_text(path.read_text().replace('"StopWork"', '"HaltWork"'))
    difference = drift(files, tmp_path)
    assert "schemas/StopWork.json (as it stands)" in difference
    assert re.search(r'^-.*"HaltWork"', difference, re.MULTILINE)
    assert re.search(r'^\+.*"StopWork"', difference, re.MULTILINE)


def test_schema_of_a_message_that_is_gone_is_drift_and_is_removed(tmp_path: Path) -> None:
    write(generated(), tmp_path)
    stray = tmp_path / SCHEMAS / "Gone.json"
    stray.write_text("{}\n")
    assert "schemas/Gone.json" in drift(generated(), tmp_path, owned=SCHEMAS)
    write(generated(), tmp_path, owned=SCHEMAS)
    assert not stray.exists()


def test_check_exits_with_1_on_drift_only() -> None:
    command = "python -m proto.schemas"
    as_committed = _run([sys.executable, "-m", "proto.schemas", "--check"])
    assert as_committed.returncode == bool(drift(generated(), owned=SCHEMAS)), as_committed.stderr
    files = "{Path('schemas/StopWork.json'): 'x'}"
    script = (
        f"from pathlib import Path; from proto.schemas import run; exit(run({files}, {command!r}))"
    )
    drifted = _run([sys.executable, "-c", script, "--check"])
    assert drifted.returncode == 1
    assert "+x" in drifted.stderr
    assert f"run `{command}`" in drifted.stderr


def _run(argv: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)


# --- JSON Schemas ---------------------------------------------------------------------


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.__name__)
def test_schema_stands_by_itself(message: type[Any]) -> None:
    schema = schema_of(message)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:skelgraph:v1:{message.__name__}"
    for reference in _references(schema):
        assert _resolve(schema, reference), reference


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.__name__)
def test_only_what_clients_send_is_closed_to_unknown_fields(message: type[Any]) -> None:
    schema = schema_of(message)
    parts = [schema, *schema.get("$defs", {}).values()]  # type: ignore[attr-defined]
    closed = [part.get("additionalProperties") is False for part in parts if "properties" in part]
    assert closed == [issubclass(message, Sent)] * len(closed)


def test_facts_and_previews_carry_their_type() -> None:
    for union in (FACT, PREVIEW):
        for name in union.json_schema()["discriminator"]["mapping"]:
            schema = json.loads((ROOT / SCHEMAS / f"{name}.json").read_text())
            assert "type" in schema["required"]
            assert schema["properties"]["type"]["const"] == name


def test_generated_files_name_no_host_but_the_dialect_s() -> None:
    for path, text in generated().items():
        hosts = set(re.findall(r"https?://[^/\s\"']+", text))
        assert hosts <= {"https://json-schema.org"}, path


# --- AsyncAPI -------------------------------------------------------------------------


def test_every_reference_resolves() -> None:
    for reference in _references(DOCUMENT):
        file, _, fragment = reference.partition("#")
        if file:
            assert Path(file).parent == Path(), reference
            assert json.loads((ROOT / SCHEMAS / file).read_text())
        else:
            assert _resolve(DOCUMENT, f"#{fragment}"), reference


@pytest.mark.parametrize("name", DOCUMENT["channels"])
def test_channel_declares_the_parameters_of_its_address(name: str) -> None:
    channel = DOCUMENT["channels"][name]
    named = re.findall(r"{(\w+)}", channel["address"] or "")
    assert list(channel.get("parameters", {})) == named
    assert len(named) == len(set(named))


def test_every_message_has_a_schema_of_its_own() -> None:
    for name, message in DOCUMENT["components"]["messages"].items():
        assert message["payload"]["schema"]["$ref"] == f"./{name}.json"
    files = {path.stem for path in (ROOT / SCHEMAS).glob("*.json")}
    assert files == DOCUMENT["components"]["messages"].keys()


@pytest.mark.parametrize("name", DOCUMENT["operations"])
def test_operation_moves_messages_of_its_channel(name: str) -> None:
    operation = DOCUMENT["operations"][name]
    assert operation["action"] in {"send", "receive"}
    assert operation["messages"]
    for part in (operation, operation.get("reply")):
        if part:
            channel = part["channel"]["$ref"]
            assert channel.removeprefix("#/channels/") in DOCUMENT["channels"]
            assert all(
                message["$ref"].startswith(f"{channel}/messages/") for message in part["messages"]
            )


def test_every_channel_is_both_written_and_read() -> None:
    for channel in CHANNELS:
        assert channel.messages
        assert channel.read


def test_command_is_answered_in_the_assemblers_queue_group() -> None:
    operation = DOCUMENT["operations"]["assembler.receive.cancel"]
    assert operation["bindings"]["nats"]["queue"] == "assembler"
    assert operation["reply"]["channel"] == {"$ref": "#/channels/cancelReply"}


def test_jetstream_facts_are_those_that_are_provisioned() -> None:
    for name, channel in DOCUMENT["channels"].items():
        said = dict(channel.get("x-nats-jetstream", {}))
        if not said:
            continue
        consumers = said.pop("consumers", [])
        stream = Stream(said.pop("stream"))
        config = stream_config(stream, LIMITS)
        assert said == {key: config[key] for key in said}, name
        assert ("max_msgs_per_subject" in said) == ("max_msgs_per_subject" in config)
        durable = {c["durable_name"] for s, c in consumer_configs(LIMITS) if s is stream}
        assert {one.replace("{partition}", "0") for one in consumers} == durable, name


def test_every_subject_of_the_contract_is_documented() -> None:
    addresses = [channel["address"] for channel in DOCUMENT["channels"].values()]
    for subject in _subjects():
        assert len([address for address in addresses if _is_of(subject, address)]) == 1, subject


def test_what_a_tenant_is_lent_is_documented() -> None:
    lent = {one.known_as for one in imports("acme") if not one.known_as.startswith("$")}
    channels = [one for one in CHANNELS if one.tenants or one.said_address]
    ours = [one.said_address or one.address for one in channels]
    known = {address: [one for one in lent if _may_be(one, address)] for address in ours}
    assert all(known.values()), known
    assert {one for found in known.values() for one in found} == lent
    addresses = {channel["address"] for channel in DOCUMENT["channels"].values()}
    assert {one.said_address or one.tenant_address for one in channels} <= addresses
    arrives = {one.subject for one in imports("{tenant}") if one.local}
    assert {one.replace(".*", ".{request}").replace(".@{tenant}", "") for one in arrives} == {
        one.tenant_address for one in channels if one.replies
    }


def _may_be(lent: str, address: str) -> bool:
    """Whether `lent`, a tenant's pattern, is of the subjects at `address`."""
    pattern = re.escape(lent).replace(r"\*", r"[^.]+").replace(">", ".+")
    subject = re.sub(r"{request}", "@acme.r", address)
    return re.fullmatch(pattern, re.sub(r"{\w+}", "1", subject)) is not None


def test_how_clients_are_let_in_is_documented() -> None:
    schemes = DOCUMENT["components"]["securitySchemes"]
    named = [one["$ref"].rpartition("/")[2] for one in DOCUMENT["servers"]["nats"]["security"]]
    assert named == [*schemes] == ["credentials", "certificate"]


def _subjects() -> Iterator[str]:
    """One subject of each method of `Subjects` that names a message's place."""
    subjects, values = Subjects(3), {"pool": "small", "band": "1", "request": "r", "node": 5}
    wildcards = {"nodes_of", "live_of", "facts_of", "said_of", "dead_of"}
    for name in vars(Subjects):
        if not name.startswith("_") and name not in wildcards | {"partitions"}:
            method = getattr(subjects, name)
            wanted = [one for one in method.__annotations__ if one != "return"]
            yield method(*(values.get(one, 2) for one in wanted))


def _is_of(subject: str, address: str | None) -> bool:
    tokens = (address or "").split(".")
    return len(tokens) == len(subject.split(".")) and all(
        token.startswith("{") or token == one
        for token, one in zip(tokens, subject.split("."), strict=True)
    )


def test_request_stands_where_readers_look_for_it() -> None:
    for name in ("request", "live", "cancel", "stop"):
        assert request_of(DOCUMENT["channels"][name]["address"]) == "{request}"


# --- configuration --------------------------------------------------------------------


def test_every_whole_number_is_one_that_can_be_written_again() -> None:
    for path, text in generated().items():
        if path.suffix == ".json":
            for number in _integers(json.loads(text)):
                assert -(2**63) <= number["minimum"] <= number["maximum"] < 2**63, (path, number)


def test_configuration_page_lists_each_setting_of_each_service() -> None:
    page = generated_configuration()[Path("docs/configuration.md")]
    assert "assembler" in services()
    kinds: list[type[ServiceSettings]] = [ServiceSettings, *services().values()]
    for kind in kinds:
        for name, field in kind.model_fields.items():
            variable = f"SKELGRAPH_{name.upper()}"
            assert f"| `{variable}` |" in page
            assert field.description, variable
            assert f"[{variable}]" not in page


# --- helpers --------------------------------------------------------------------------


def _integers(part: object) -> Iterator[dict[str, Any]]:
    """The schemas of whole numbers in a part of a schema."""
    inner: Iterable[object] = ()
    if isinstance(part, dict):
        if part.get("type") == "integer":
            yield part
        inner = part.values()
    elif isinstance(part, list):
        inner = part
    for one in inner:
        yield from _integers(one)


def _references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "$ref":
                yield value
            else:
                yield from _references(value)
    elif isinstance(part, list):
        for value in part:
            yield from _references(value)


def _resolve(document: Any, reference: str) -> object:
    assert reference.startswith("#/")
    for key in reference.removeprefix("#/").split("/"):
        document = document[key]
    return document
