"""Keys, accounts and idempotency: who asks, how much, and what is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from proto.errors import InvalidRequest
from proto.messages import ErrorInfo, Fact, RequestFailed
from proto.names import check_request_id
from services.gateway.__main__ import GatewaySettings
from services.gateway.accounts import GRACE_S, MAX_RECENT, Accounts
from services.gateway.errors import InvalidApiKey, TokensPerMinute, TooManyRequests
from services.gateway.idempotency import request_id
from services.gateway.keys import Caller, Keys, entry, new_key, parse
from tests.facts import accepted, decoded, plan
from tests.unit.test_order import ERROR

ALICE = Caller("alice", max_in_flight=2, tokens_per_minute=100)


def failed(request: str) -> RequestFailed:
    return RequestFailed(request=request, error=ERROR)


# --- keys -----------------------------------------------------------------------------


def test_a_key_is_known_by_its_digest_only(tmp_path: Path) -> None:
    key, file = new_key(), tmp_path / "keys.toml"
    file.write_text(entry("alice", key, {"max_in_flight": 2, "tokens_per_minute": 100}))
    assert key not in file.read_text()
    keys = Keys(file)
    keys.load()
    assert keys.caller(f"Bearer {key}") == ALICE
    assert keys.caller(f"bearer {key}") == ALICE
    for wrong in (None, "", key, f"Basic {key}", f"Bearer {key}x", f"Bearer {file.read_text()}"):
        with pytest.raises(InvalidApiKey):
            keys.caller(wrong)


def test_without_a_file_everybody_is_nobody() -> None:
    assert Keys(None).caller(None) == Caller()


@pytest.mark.parametrize(
    "text",
    [
        "key = 1",
        "[[key]]\nowner = 'a'",
        "[[key]]\nowner = 'a b'\nsha256 = '" + "0" * 64 + "'",
        "[[key]]\nowner = 'a'\nsha256 = 'secret'",
        "[[key]]\nowner = 'a'\nsha256 = '" + "0" * 64 + "'\nmax_in_fight = 1",
        "[[",
    ],
)
def test_a_bad_keys_file_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse(text)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "gateway.example"])
def test_other_machines_are_not_served_without_keys(host: str) -> None:
    with pytest.raises(ValidationError, match="keys-file"):
        GatewaySettings(http_host=host)
    assert GatewaySettings(http_host=host, no_auth=True).no_auth
    assert GatewaySettings(http_host=host, keys_file=Path("keys.toml")).keys_file


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_is_served_without_keys(host: str) -> None:
    assert GatewaySettings(http_host=host).is_loopback


# --- accounts -------------------------------------------------------------------------


def test_requests_in_flight_are_bounded_until_they_end() -> None:
    accounts = Accounts()
    accounts.admit(ALICE, "a", now=0, deadline_at=600)
    accounts.admit(ALICE, "b", now=0, deadline_at=600)
    with pytest.raises(TooManyRequests):
        accounts.admit(ALICE, "c", now=0, deadline_at=600)
    accounts.fold(accepted("a", owner="alice"), 1)
    assert accounts.in_flight("alice", 1) == 2
    accounts.fold(failed("a"), 2)
    accounts.admit(ALICE, "c", now=2, deadline_at=600)
    accounts.withdraw("c")
    assert accounts.in_flight("alice", 2) == 1
    assert accounts.in_flight("bob", 2) == 0


def test_what_another_gateway_admitted_counts() -> None:
    accounts = Accounts()
    for request in ("a", "b"):
        accounts.fold(accepted(request, owner="alice"), 1)
    with pytest.raises(TooManyRequests):
        accounts.admit(ALICE, "c", now=1, deadline_at=600)


def test_a_request_that_nobody_ends_does_not_count_for_ever() -> None:
    accounts = Accounts()
    accounts.admit(ALICE, "a", now=0, deadline_at=10)
    assert accounts.in_flight("alice", 10 + GRACE_S) == 1
    assert accounts.in_flight("alice", 11 + GRACE_S) == 0


def test_facts_that_come_twice_or_after_the_end_count_once() -> None:
    accounts = Accounts()
    for fact in (failed("a"), accepted("a", owner="alice"), failed("a")):
        accounts.fold(fact, 1)
    accounts.fold(accepted("a", owner="alice"), 2)
    assert accounts.in_flight("alice", 2) == 0


def test_tokens_of_the_last_minute_are_bounded() -> None:
    accounts = Accounts()
    accounts.fold(accepted("a", owner="alice", at=0), 0)
    accounts.fold(plan([1], request="a"), 10)  # 70 tokens
    accounts.fold(decoded(1, request="a"), 20)  # 15 tokens
    accounts.fold(decoded(2, request="a"), 30)
    accounts.fold(failed("a"), 31)
    with pytest.raises(TokensPerMinute) as caught:
        accounts.admit(ALICE, "b", now=40, deadline_at=600)
    assert caught.value.retry_after_s == 30  # when the plan is a minute old
    accounts.admit(ALICE, "b", now=71, deadline_at=600)
    assert accounts.spent("alice", 71) == 30


def test_a_gateway_just_started_counts_what_others_count() -> None:
    facts: list[tuple[Fact, float]] = [
        (accepted("a", owner="alice", at=0), 0),
        (plan([1], request="a"), 10),
        (decoded(1, request="a"), 20),
        (failed("a"), 21),
    ]
    running, started = Accounts(), Accounts()
    for fact, at in facts:
        running.fold(fact, at)
    for fact, at in [facts[0], facts[3], *facts]:  # first who has asked, then the last minute
        started.fold(fact, at)
    assert started.spent("alice", 30) == running.spent("alice", 30) == 85
    assert started.in_flight("alice", 30) == 0


def test_what_nobody_asks_for_is_not_kept() -> None:
    accounts = Accounts()
    for number in range(100):
        request, at = f"r{number}", number * 100.0
        accounts.fold(accepted(request, owner="alice", at=at), at)
        accounts.fold(plan([1], request=request), at)
        accounts.fold(failed(request), at)
    assert len(accounts._accounts["alice"].spent) == 1


def test_history_is_newest_first_bounded_and_the_owners_own() -> None:
    accounts = Accounts()
    for number in range(MAX_RECENT + 10):
        accounts.fold(accepted(f"r{number}", owner="alice", at=number), number)
    accounts.fold(accepted("other", owner="bob", at=5), 5)
    end = RequestFailed(
        request="r55", error=ErrorInfo(code="cancelled", message="", retryable=False)
    )
    accounts.fold(end, 100)
    recent = accounts.recent("alice", MAX_RECENT)
    assert len(recent) == MAX_RECENT
    assert recent[0].request == f"r{MAX_RECENT + 9}"
    assert {one.request: one.state for one in recent}["r55"] == "cancelled"
    assert [one.request for one in accounts.recent("bob", 5)] == ["other"]


# --- idempotency ----------------------------------------------------------------------


def test_a_key_means_one_request_of_one_owner() -> None:
    request = request_id("alice", "key")
    assert request == request_id("alice", "key") == check_request_id(request)
    others = {request_id("bob", "key"), request_id("alice", "Key"), request_id("alice", "key", 1)}
    assert len({request, *others}) == 4


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "\u00e4", "a\tb", "a\n"])
def test_a_key_is_neither_empty_nor_endless_nor_odd(key: str) -> None:
    with pytest.raises(InvalidRequest):
        request_id("alice", key)
