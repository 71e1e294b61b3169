"""Dead letters on their way to a reader: what is left out, what is cut, how it reads."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from rich.console import Console

from proto.codec import encode
from proto.errors import EngineUnavailable, InvalidRequest
from proto.messages import (
    MAX_LETTERS,
    AnswerAssembled,
    DeadLetter,
    ErrorInfo,
    Fact,
    LetterPage,
    ListLetters,
    RequestFailed,
)
from services.assembler.answer import end_of
from services.assembler.graph import Dead, Graph
from services.assembler.letter_view import StoredLetter, shown, state_of, summary_of, without_text
from services.assembler.letters import MAX_READ, _Page
from skelgraph.dead_commands import choose
from skelgraph.letter_texts import instant, letter_lines, letters_table, since_of
from skelgraph.letters import LetterId, Wanted
from tests.facts import REQUEST, accepted, decoded, failed, plan, planned, story

DIED_AT = 1_767_225_600.0  # 2026-01-01
SECRETS = ("Why?", "point 1", "point 2", "Text 1.")


def dead(*told: Fact) -> Dead:
    graph = Graph(REQUEST)
    for fact, stored_at in story(accepted(), planned(1), planned(2, [1]), decoded(1), *told):
        graph.fold(fact, stored_at)
    (one,) = graph.deaths()
    return one


def letter(message: str = "no route") -> StoredLetter:
    one = dead(*(failed(2, attempt) for attempt in (1, 2, 3, 4)))
    error = ErrorInfo.of(EngineUnavailable(message))
    held = DeadLetter(
        request=REQUEST,
        node=2,
        attempts=4,
        error=error,
        work=one.work,
        history=one.history,
        submitted=one.submitted,
    )
    return StoredLetter(held, DIED_AT)


def lines(*, with_text: bool) -> str:
    return "\n".join(letter_lines(shown(letter(), [], with_text=with_text), with_text=with_text))


# --- what is shown --------------------------------------------------------------------


def test_a_letter_holds_all_texts_and_shows_none_unless_asked() -> None:
    whole = letter().letter
    assert all(secret in whole.model_dump_json() for secret in SECRETS)
    for said in (
        without_text(whole).model_dump_json(),
        summary_of(letter()).model_dump_json(),
        lines(with_text=False),
    ):
        assert not any(secret in said for secret in SECRETS)
    assert all(secret in lines(with_text=True) for secret in SECRETS)


def test_without_texts_all_else_is_left() -> None:
    whole, bare = letter().letter, without_text(letter().letter)
    assert (bare.history, bare.error) == (whole.history, whole.error)
    assert bare.work.node.needs == (1,)
    assert bare.submitted
    assert whole.submitted
    assert bare.submitted.deadline_s == whole.submitted.deadline_s


def test_every_attempt_is_told_with_its_time_place_and_error() -> None:
    said = lines(with_text=False)
    assert "letter    r1/2" in said
    assert "died      2026-01-01T00:00:00Z, attempts: 4" in said
    for attempt in (1, 2, 3, 4):
        assert f"attempt {attempt} 1970-01-01T00:16:" in said
    assert said.count("http://e, w") == said.count("engine_failed: The engine failed: boom") == 4


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ((), ("gone", None)),
        ((accepted(),), ("open", None)),
        ((accepted(), planned(1), plan([1]), decoded(1)), ("answered", None)),
        ((accepted(), planned(1), failed(1, retryable=False), decoded(0)), ("fell_back", None)),
        (
            (accepted(on_failure="fail"), planned(1), plan([1]), failed(1, retryable=False)),
            ("failed", "node_gave_up"),
        ),
    ],
)
def test_what_became_of_the_request_is_told(told: Sequence[Fact], state: object) -> None:
    graph = Graph(REQUEST)
    for fact, stored_at in story(*told):
        graph.fold(fact, stored_at)
    end = end_of(graph, 2000.0)
    assert isinstance(end, AnswerAssembled | RequestFailed | None)
    assert state_of([*told, *([end] if end else [])]) == state


def test_control_characters_of_an_error_reach_no_terminal() -> None:
    console = Console(width=200, record=True, file=None, force_terminal=False)
    table = letters_table([summary_of(letter("\x1b[2J\nx"))])
    with console.capture() as got:
        console.print(table)
    assert "\x1b" not in got.get()
    assert len(got.get().splitlines()) == 2


# --- pages ----------------------------------------------------------------------------


def message(place: int, said: str = "no route", body: bytes = b"") -> Msg:
    headers = {"Nats-Sequence": str(place), "Nats-Time-Stamp": "2026-01-01T00:00:00Z"}
    data = body or encode(letter(said).letter)
    return Msg(Client(), subject="", data=data, headers=headers)


def page(*messages: Msg, room: int = 1_000_000, **asked: object) -> LetterPage:
    filling = _Page(ListLetters.model_validate(asked), room)
    for one in messages:
        filling.take(one)
    filling.at_end = True
    return filling.reply()


def test_the_last_page_has_no_next_one() -> None:
    assert page() == LetterPage(letters=())
    assert page(message(7)).next is None


def test_a_page_that_would_be_too_large_for_a_message_goes_on_where_it_was_cut() -> None:
    size = len(encode(page(message(7)).letters[0]))
    cut = page(message(7), message(9), message(12), room=2 * size)
    assert (len(cut.letters), cut.next) == (2, 9)


def test_the_largest_page_fits_into_a_message_of_the_default_size() -> None:
    worst = encode(page(message(1, "\x01" * 1000)).letters[0])
    assert len(worst) * MAX_LETTERS < 1_000_000 - 4096


def test_letters_that_cannot_be_read_do_not_hide_the_others() -> None:
    assert len(page(message(1, body=b"{}"), message(2)).letters) == 1


def test_a_page_reads_so_many_letters_and_no_more() -> None:
    filling = _Page(ListLetters(code="other"), 1_000_000)
    one = message(1)
    for _ in range(MAX_READ):
        assert not filling.is_full
        filling.take(one)
    assert filling.is_full
    assert filling.reply() == LetterPage(letters=(), next=1)


# --- what a person writes ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "at"),
    [
        ("30s", 99_970.0),
        ("1.5m", 99_910.0),
        ("1h", 96_400.0),
        ("1d", 13_600.0),
        ("7d", 0.0),
        ("2026-01-01", DIED_AT),
        ("2026-01-01T01:00:00+01:00", DIED_AT),
        ("2026-01-01T00:00:00Z", DIED_AT),
    ],
)
def test_a_time_is_told_by_how_long_ago_or_by_date(written: str, at: float) -> None:
    assert since_of(written, 100_000.0) == at


def test_what_is_listed_can_be_given_back_as_a_time() -> None:
    assert since_of(instant(DIED_AT), 0.0) == DIED_AT


@pytest.mark.parametrize("written", ["", "yesterday", "-1h", "1w", "2026-13-01"])
def test_what_is_no_time_is_refused_by_name(written: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        since_of(written, 0.0)
    assert refused.value.field == "since"


def test_letters_are_named_or_all_meant_but_not_both() -> None:
    ids = choose(["r1/1", "r2/0"], everything=False, wanted=Wanted()).ids
    assert ids == (LetterId("r1", 1), LetterId("r2", 0))
    assert choose(None, everything=True, wanted=Wanted(code="busy")).wanted == Wanted(code="busy")
    for names, everything, wanted in (
        (None, False, Wanted()),
        (["r1/1"], True, Wanted()),
        (["r1/1"], False, Wanted(code="busy")),
    ):
        with pytest.raises(InvalidRequest):
            choose(names, everything=everything, wanted=wanted)
