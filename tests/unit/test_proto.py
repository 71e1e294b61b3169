"""The contract: bytes and back, names that cannot be abused, errors that keep their codes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from proto.channels import MESSAGES
from proto.codec import (
    FACT,
    MAX_REQUEST_BYTES,
    decode,
    decode_end,
    decode_fact,
    decode_preview,
    encode,
)
from proto.errors import (
    InvalidRequest,
    MalformedMessage,
    RequestTooLarge,
    SkelgraphError,
    all_errors,
)
from proto.messages import (
    CancelRequest,
    End,
    ErrorInfo,
    Fact,
    NodeDecoded,
    NodeText,
    Preview,
    RequestAccepted,
    Sent,
    StopWork,
    SubmitRequest,
    TokensDecoded,
)
from proto.names import (
    ANSWER,
    ANY_LETTER,
    DROP_LETTER,
    LIST_LETTERS,
    PREFIX,
    REQUEUE_LETTER,
    SHOW_LETTER,
    STREAM_SUBJECTS,
    SUBMIT,
    TENANT_PATTERN,
    Band,
    Pool,
    Stream,
    Subjects,
    check_request_id,
    check_tenant,
    new_request_id,
    node_consumer_filter,
    of_tenant,
    partition_consumer_filter,
    partition_of,
    request_and_kind_of,
    request_of,
    requeued_id,
    split_tenant,
    tenant_of,
    tenant_token,
    work_of,
)
from skelgraph.local import errors as local_errors
from tests.unit.generated import FEW, built, built_one_of

ID = r"(?:@[a-z0-9][a-z0-9_-]{0,31}\.)?[A-Za-z0-9_-]{1,64}"
REQUEST_IDS = st.from_regex(ID, fullmatch=True)
NODES = st.integers(0, 999)
ATTEMPTS = st.integers(1, 20)
PARTITIONS = st.integers(1, 64)

SENT = [message for message in MESSAGES if issubclass(message, Sent)]
PASSED = [message for message in MESSAGES if not issubclass(message, Sent)]


# --- codec ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@FEW
@given(data=st.data())
def test_what_is_encoded_is_decoded_again(kind: type[BaseModel], data: st.DataObject) -> None:
    message = data.draw(built(kind))
    assert decode(kind, encode(message)) == message


@FEW
@given(built_one_of(Fact))
def test_facts_are_told_apart_by_their_type(fact: Fact) -> None:
    assert decode_fact(encode(fact)) == fact


@FEW
@given(built_one_of(End))
def test_ends_are_told_apart_by_their_type(end: End) -> None:
    assert decode_end(encode(end)) == end


@FEW
@given(built_one_of(Preview))
def test_previews_are_told_apart_by_their_type(preview: Preview) -> None:
    assert decode_preview(encode(preview)) == preview


@pytest.mark.parametrize("kind", SENT, ids=lambda kind: kind.__name__)
@FEW
@given(data=st.data())
def test_unknown_field_of_a_client_is_refused_by_name(
    kind: type[BaseModel], data: st.DataObject
) -> None:
    body = json.loads(encode(data.draw(built(kind)))) | {"colour": 1}
    with pytest.raises(InvalidRequest) as refused:
        decode(kind, json.dumps(body).encode())
    assert refused.value.field == "colour"


@pytest.mark.parametrize("kind", PASSED, ids=lambda kind: kind.__name__)
@FEW
@given(data=st.data())
def test_field_of_a_newer_service_is_ignored(kind: type[BaseModel], data: st.DataObject) -> None:
    message = data.draw(built(kind))
    body = json.loads(encode(message)) | {"from_the_future": {"deep": [1]}}
    assert decode(kind, json.dumps(body).encode()) == message


@FEW
@given(built(RequestAccepted))
def test_newer_field_is_ignored_inside_of_a_fact_too(fact: RequestAccepted) -> None:
    body = json.loads(encode(fact))
    body["submitted"]["from_the_future"] = 1
    body["submitted"]["sampling"]["from_the_future"] = 1
    assert decode_fact(json.dumps(body).encode()) == fact


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "question"),
        ({"question": ""}, "question"),
        ({"question": " \n\t "}, "question"),
        ({"question": 7}, "question"),
        ({"question": "?" * 100_001}, "question"),
        ({"question": "?", "mode": "fast"}, "mode"),
        ({"question": "?", "max_nodes": "3"}, "max_nodes"),
        ({"question": "?", "max_nodes": 65}, "max_nodes"),
        ({"question": "?", "adaptive": 1}, "adaptive"),
        ({"question": "?", "deadline_s": 0}, "deadline_s"),
        ({"question": "?", "sampling": {"top_p": 0}}, "sampling.top_p"),
        ({"question": "?", "sampling": {"top_k": 3}}, "sampling.top_k"),
    ],
)
def test_bad_value_is_refused_with_its_field(body: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        decode(SubmitRequest, json.dumps(body).encode())
    assert refused.value.field == field
    assert f"({field})" in refused.value.message


def test_oversized_request_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(RequestTooLarge, match=str(MAX_REQUEST_BYTES)):
        decode(SubmitRequest, b"{" * (MAX_REQUEST_BYTES + 1))


@pytest.mark.parametrize("kind", [SubmitRequest, CancelRequest, NodeDecoded, TokensDecoded])
@FEW
@given(data=st.one_of(st.binary(), st.recursive(st.none(), st.lists).map(json.dumps)))
@example(data=b"{}garbage")
def test_garbage_raises_errors_of_the_contract_only(
    kind: type[BaseModel], data: bytes | str
) -> None:
    expected = InvalidRequest if issubclass(kind, Sent) else MalformedMessage
    assume(data != b"{}")  # a cancel without a reason
    with pytest.raises(expected):
        decode(kind, data if isinstance(data, bytes) else data.encode())


def test_complaint_does_not_repeat_what_the_client_wrote() -> None:
    secret = "my diary"
    body = json.dumps({"question": "?", "mode": secret}).encode()
    with pytest.raises(InvalidRequest) as refused:
        decode(SubmitRequest, body)
    assert secret not in refused.value.message


# --- names ----------------------------------------------------------------------------


@given(st.text())
def test_only_harmless_text_becomes_a_request_id(text: str) -> None:
    assert _accepts(text) == bool(re.fullmatch(ID, text))


def test_refused_request_id_is_named_as_the_field() -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_request_id("all.>")
    assert refused.value.field == "request"


@given(st.text(st.sampled_from("aZ0_-.*>$@ \n"), max_size=66))
def test_messages_and_subjects_agree_on_request_ids(text: str) -> None:
    assert _accepts(text) == _stands_in_a_message(text)


def _accepts(text: str) -> bool:
    try:
        return check_request_id(text) == text
    except InvalidRequest:
        return False


def _stands_in_a_message(text: str) -> bool:
    try:
        return StopWork(request=text).request == text
    except ValidationError:
        return False


def test_new_request_ids_are_valid_and_differ() -> None:
    made = {check_request_id(new_request_id()) for _ in range(100)}
    assert len(made) == 100


@given(REQUEST_IDS, NODES, ATTEMPTS, PARTITIONS)
def test_subjects_hold_nothing_but_known_words_and_the_id(
    request: str, node: int, attempt: int, partitions: int
) -> None:
    known = {*["skelgraph", "v1", "request", "node", "dead", "live", "cancel", "stop", "event"]}
    known |= {*["accepted", "planned", "plan", "decoded", "failed", "end", "answer"]}
    for subject in _subjects(request, node, attempt, partitions):
        tokens = subject.split(".")
        own = request.split(".")
        assert all(tokens.count(one) >= 1 for one in own)
        assert all(
            token in known or token in {*Pool, *own} or token.isdecimal() for token in tokens
        )


@given(REQUEST_IDS, NODES, ATTEMPTS, PARTITIONS)
def test_each_subject_belongs_to_one_stream_or_to_none(
    request: str, node: int, attempt: int, partitions: int
) -> None:
    for subject in _subjects(request, node, attempt, partitions):
        streams = [stream for stream in Stream if _matches(STREAM_SUBJECTS[stream], subject)]
        on_core = subject.split(".")[2] in {"live", "answer", "cancel", "stop"}
        assert len(streams) == (0 if on_core else 1)


@given(REQUEST_IDS, NODES, ATTEMPTS, PARTITIONS)
def test_each_queued_message_has_exactly_one_consumer(
    request: str, node: int, attempt: int, partitions: int
) -> None:
    filters = [node_consumer_filter(pool, band) for pool in Pool for band in Band]
    for pool in Pool:
        for band in Band:
            work = Subjects.node(pool, band, request, node, attempt)
            assert [one for one in filters if _matches(one, work)] == [
                node_consumer_filter(pool, band)
            ]
            assert _matches(Subjects.nodes_of(request), work)
    fact = Subjects(partitions).decoded(request, node)
    owners = [n for n in range(partitions) if _matches(partition_consumer_filter(n), fact)]
    assert owners == [partition_of(request, partitions)]
    assert _matches(Subjects.facts_of(request), fact)


@given(REQUEST_IDS, REQUEST_IDS, NODES, ATTEMPTS)
def test_one_request_never_reads_another_ones_subjects(
    request: str, other: str, node: int, attempt: int
) -> None:
    wildcards = (
        Subjects.facts_of(request),
        Subjects.nodes_of(request),
        Subjects.live_of(request),
        Subjects.dead_of(request),
    )
    seen = [
        subject
        for subject in _subjects(other, node, attempt, 8)
        if any(_matches(wildcard, subject) for wildcard in wildcards)
    ]
    assert bool(seen) == (request == other)


@given(REQUEST_IDS, NODES)
def test_request_is_found_again_in_its_subjects(request: str, node: int) -> None:
    for subject in (
        Subjects.request(request),
        Subjects.answer(request),
        Subjects.cancel(request),
        Subjects.stop(request),
        Subjects.live(request, node),
    ):
        assert request_of(subject) == request
    work = Subjects.node(Pool.SMALL, Band.NORMAL, request, node, 3)
    assert work_of(work) == (Pool.SMALL, request, node, 3)
    assert request_and_kind_of(Subjects(8).decoded(request, node)) == (request, "decoded")
    assert request_and_kind_of(Subjects(8).end(request)) == (request, "end")


@given(REQUEST_IDS, st.from_regex(TENANT_PATTERN, fullmatch=True), NODES)
def test_a_tenants_subjects_hold_its_requests_and_no_others(
    request: str, tenant: str, node: int
) -> None:
    own = f"*.{tenant_token(tenant)}.>"
    said = _matches(f"{PREFIX}.event.{own}", Subjects(8).decoded(request, node))
    assert said == (tenant_of(request) == tenant)
    assert tenant_of(requeued_id(request)) == tenant_of(request)
    assert tenant_of(check_request_id(new_request_id(tenant))) == check_tenant(tenant)


@given(st.text(st.sampled_from("aZ0_-.*>$@ \n"), max_size=34))
def test_only_harmless_text_becomes_a_tenant(text: str) -> None:
    if re.fullmatch(TENANT_PATTERN, text):
        assert tenant_of(check_request_id(f"@{check_tenant(text)}.x")) == text
        return
    with pytest.raises(InvalidRequest) as refused:
        check_tenant(text)
    assert refused.value.field == "tenant"


@given(st.from_regex(TENANT_PATTERN, fullmatch=True), REQUEST_IDS)
def test_a_tenants_subject_names_its_owner_and_belongs_to_no_stream(
    owner: str, request: str
) -> None:
    for subject in (SUBMIT, ANSWER, Subjects.answer(request), Subjects.cancel(request)):
        arrives = of_tenant(subject, owner)
        assert _matches(of_tenant(subject), arrives)
        assert split_tenant(arrives) == (owner, subject)
        assert split_tenant(subject) == ("", subject)
        assert not any(_matches(taken, arrives) for taken in STREAM_SUBJECTS.values())


def test_requeued_requests_have_ids_that_are_valid_and_known_beforehand() -> None:
    assert requeued_id("r1") == requeued_id("r1") == check_request_id(requeued_id("r1"))
    assert (
        len({"r1", "r2", requeued_id("r1"), requeued_id("r2"), requeued_id(requeued_id("r1"))}) == 5
    )


def test_commands_on_letters_are_not_taken_for_letters() -> None:
    for subject in (LIST_LETTERS, SHOW_LETTER, REQUEUE_LETTER, DROP_LETTER):
        assert _matches(ANY_LETTER, subject)
        assert not any(_matches(subjects, subject) for subjects in STREAM_SUBJECTS.values())


def test_a_request_that_is_no_requeue_is_understood_by_older_planners() -> None:
    assert b"requeued_from" not in encode(SubmitRequest(question="?"))
    requeued = SubmitRequest(question="?", requeued_from="r1")
    assert decode(SubmitRequest, encode(requeued)) == requeued


def test_partition_of_a_request_is_the_same_in_every_release() -> None:
    found = {request: partition_of(request, 8) for request in ("a", "0123456789abcdef", "x-1_Y")}
    assert found == {"a": 3, "0123456789abcdef": 3, "x-1_Y": 4}


def _subjects(request: str, node: int, attempt: int, partitions: int) -> Iterator[str]:
    subjects = Subjects(partitions)
    yield Subjects.request(request)
    for pool in Pool:
        for band in Band:
            yield Subjects.node(pool, band, request, node, attempt)
    yield Subjects.dead(request, node)
    yield Subjects.live(request, node)
    yield Subjects.answer(request)
    yield Subjects.cancel(request)
    yield Subjects.stop(request)
    yield subjects.accepted(request)
    yield subjects.planned(request, node)
    yield subjects.plan(request)
    yield subjects.decoded(request, node)
    yield subjects.failed(request, node, attempt)
    yield subjects.end(request)


def _matches(wildcard: str, subject: str) -> bool:
    """Whether a NATS server would deliver `subject` to a subscriber of `wildcard`."""
    wanted, tokens = wildcard.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted, tokens = wanted[:-1], tokens[: len(wanted) - 1]
        if len(subject.split(".")) <= len(wanted):
            return False
    return len(wanted) == len(tokens) and all(
        one in ("*", token) for one, token in zip(wanted, tokens, strict=True)
    )


# --- errors ---------------------------------------------------------------------------

#: Codes are an interface: what has been published is neither renamed nor changed.
RETRYABLE = {
    "internal": False,
    "invalid_request": False,
    "request_too_large": False,
    "malformed_message": False,
    "message_too_large": False,
    "busy": True,
    "cancelled": False,
    "deadline_exceeded": False,
    "queue_unavailable": True,
    "not_provisioned": True,
    "engine_failed": True,
    "engine_unavailable": True,
    "engine_overloaded": True,
    "engine_timed_out": True,
    "engine_cut_off": True,
    "engine_rejected": False,
    "prompt_too_long": False,
    "empty_text": True,
    "plan_rejected": False,
    "node_gave_up": False,
    "worker_lost": True,
    "letter_not_found": False,
    "request_open": True,
    "request_gone": False,
}


def _types(root: type[SkelgraphError] = SkelgraphError) -> Iterator[type[SkelgraphError]]:
    yield root
    for child in root.__subclasses__():
        yield from _types(child)


def test_each_error_has_a_code_of_its_own() -> None:
    assert local_errors.LocalStackError in _types()
    codes = [error.code for error in _types()]
    assert sorted(codes) == sorted(set(codes))
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)


def test_each_error_says_what_happened_in_a_sentence() -> None:
    for error in _types():
        said = error.__doc__  # its own, not inherited
        assert said, error
        assert said.split("\n")[0].endswith("."), error
        assert error().message == said.split("\n")[0]


@pytest.mark.parametrize("code", RETRYABLE)
def test_published_code_keeps_its_meaning(code: str) -> None:
    assert all_errors()[code].retryable is RETRYABLE[code]


@given(st.sampled_from(sorted(RETRYABLE)), st.text(), st.none() | st.text(min_size=1))
def test_error_travels_with_its_code_whatever_its_detail(
    code: str, detail: str, field: str | None
) -> None:
    error = all_errors()[code](detail, field=field)
    info = ErrorInfo.of(error)
    assert (info.code, info.retryable, info.field) == (code, RETRYABLE[code], field)
    assert detail in info.message
    assert (field or "") in info.message


def test_every_fact_names_its_request() -> None:
    schema = FACT.json_schema()
    for name in schema["discriminator"]["mapping"]:
        assert "request" in schema["$defs"][name]["required"]


def test_what_cannot_be_read_is_not_quoted() -> None:
    for data in (
        b'{"type": "SECRETWORD"}',
        b'{"type": "NodeDecoded", "request": {"SECRETWORD": 1}}',
    ):
        with pytest.raises(MalformedMessage) as caught:
            decode_fact(data)
        assert "SECRETWORD" not in caught.value.message
    with pytest.raises(ValidationError) as invalid:
        NodeText(id=1, summary=[], text="SECRETWORD")  # type: ignore[arg-type]
    assert "SECRETWORD" not in str(invalid.value)
