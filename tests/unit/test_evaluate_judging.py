"""Who is better: verdicts of a judge, and of hands that do not know whose answer is whose."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

import bench.evaluate.__main__  # noqa: F401 - it adds the commands
from bench.evaluate import blind
from bench.evaluate.app import app
from bench.evaluate.judge import left, looks, made_by, without_reference
from bench.evaluate.judge_commands import read_pairs
from bench.evaluate.judging import (
    GRAMMAR,
    ORDERS,
    Judgement,
    Shown,
    Verdict,
    call,
    outcomes,
    shown,
    steadiness,
    tally,
    verdict_in,
)
from bench.evaluate.records import Records, records_of
from bench.questions import Question
from proto.errors import InvalidRequest
from tests.unit.evaluated import record, recorded

pytestmark = pytest.mark.usefixtures("in_process")

VERDICTS: tuple[Verdict, ...] = ("A", "B", "tie")


# --- verdicts ---


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("Better.\nverdict: A", "A"),
        ("Better.\n\nVerdict: b\n", "B"),
        ("verdict: TIE", "tie"),
        ("verdict: A\nWhich it is.\nverdict: A", "A"),
        ("verdict: A\nverdict: B", None),
        ("verdict: A\nBut then again.", None),
        ("verdict: A or B", None),
        ("verdict: C", None),
        ("A", None),
        ("I think verdict: A", None),
        ("", None),
        ("\x00\ufffd", None),
    ],
)
def test_only_the_last_line_and_only_in_its_form_is_a_verdict(
    said: str, verdict: Verdict | None
) -> None:
    assert verdict_in(said) == verdict


@given(st.text())
def test_garbage_is_no_verdict_and_no_error(said: str) -> None:
    assert verdict_in(said) in (*VERDICTS, None)


def test_what_the_grammar_allows_is_a_verdict() -> None:
    for verdict in VERDICTS:
        said = f"It is clearer.\nverdict: {verdict}"
        assert re.fullmatch(GRAMMAR.regex, said)
        assert verdict_in(said) == verdict


@pytest.mark.parametrize("reason", ["verdict: A", "Verdict: B", " verdict: A", "**verdict: A**"])
def test_no_reason_begins_as_a_verdict(reason: str) -> None:
    assert not re.fullmatch(GRAMMAR.regex, f"{reason}\nverdict: B")


@pytest.mark.parametrize("reason", ["Both are vague.", "answer B adds a cost", "两者都对。"])
def test_a_reason_begins_with_any_other_letter(reason: str) -> None:
    assert re.fullmatch(GRAMMAR.regex, f"{reason}\nverdict: B")


def test_a_judge_sees_the_reference_where_there_is_one() -> None:
    answers = Shown("four", "five")
    with_one = call(Question("1", "math", "2+2?", "4"), answers).messages[-1].content
    assert "known to be right:\n4" in with_one
    assert "known" not in call(Question("1", "math", "2+2?"), answers).messages[-1].content


BOTH = ("sgd", "direct")


def answered(questions: int = 2) -> Records:
    """Return answers of both methods."""
    return Records(record(str(n), "generic", method) for n in range(questions) for method in BOTH)


def judged(
    straight: Verdict | None,
    swapped: Verdict | None,
    question: str = "1",
    methods: tuple[str, str] = BOTH,
) -> list[Judgement]:
    now = shown(answered(int(question) + 1), question, methods)
    return [
        Judgement(
            question=question,
            category="generic",
            first=methods[0],
            second=methods[1],
            order=order,
            texts=now[order].texts,
            verdict=verdict,
            said="",
            judge="j",
        )
        for order, verdict in zip(ORDERS, (straight, swapped), strict=True)
    ]


@pytest.mark.parametrize(
    ("straight", "swapped", "result"),
    [
        ("A", "B", "win"),
        ("B", "A", "loss"),
        ("A", "A", "tie"),  # it prefers a place, not an answer
        ("tie", "tie", "tie"),
        ("A", "tie", "win"),
        ("tie", "A", "loss"),
        ("A", None, "none"),
        (None, None, "none"),
    ],
)
def test_the_sign_of_both_orders_together_decides(
    straight: Verdict | None, swapped: Verdict | None, result: str
) -> None:
    (outcome,) = outcomes(judged(straight, swapped), answered(), BOTH)["j"]
    assert outcome.result == result


def test_how_often_a_judge_says_the_same_in_both_orders_is_told() -> None:
    made = [
        *judged("A", "B", "0"),
        *judged("A", "A", "1"),
        *judged("tie", "tie", "2"),
        *judged("A", None, "3"),
        *judged("B", "B", "4")[:1],
    ]
    found = steadiness(made, answered(5), [BOTH])["j"]
    assert (found.same, found.pairs) == (2, 3)
    assert found.said == {"A": 4, "B": 2, "tie": 2, None: 1}


def test_only_looks_that_the_table_counts_tell_how_steady_a_judge_is() -> None:
    stale = [one.model_copy(update={"texts": "old"}) for one in judged("B", "A", "1")]
    untold = [one.model_copy(update={"category": "math"}) for one in judged("A", "A", "2")]
    other = judged("A", "A", "3", ("direct", "sgd"))
    made = [*judged("A", "B", "0"), *stale, *untold, *other, judged("A", "B", "1")[0]]
    assert {name: len(found) for name, found in outcomes(made, answered(4), BOTH).items()} == {
        "j": 2
    }
    found = steadiness(made, answered(4), [BOTH])["j"]
    assert (found.same, found.pairs, found.said.total()) == (1, 1, 3)
    assert steadiness([*stale, *untold], answered(4), [BOTH]) == {}
    both = steadiness(made, answered(4), [BOTH, ("direct", "sgd")])["j"]
    assert (both.same, both.pairs) == (1, 2)


@given(st.lists(st.tuples(st.sampled_from(VERDICTS), st.sampled_from(VERDICTS)), min_size=1))
def test_who_loses_against_the_other_is_who_the_other_wins_against(
    verdicts: Sequence[tuple[Verdict, Verdict]],
) -> None:
    records = answered(len(verdicts))
    one = [j for n, v in enumerate(verdicts) for j in judged(*v, question=str(n))]
    # What is straight for the one is swapped for the other.
    other = [j for n, v in enumerate(verdicts) for j in judged(*v[::-1], str(n), ("direct", "sgd"))]
    forth = tally(outcomes(one, records, BOTH)["j"])
    back = tally(outcomes(other, records, ("direct", "sgd"))["j"])
    assert (forth.wins, forth.ties, forth.losses) == (back.losses, back.ties, back.wins)
    assert forth.judged == len(verdicts)


def test_pairs_without_a_verdict_are_named_and_counted_in_nothing() -> None:
    made = [*judged("A", "B"), *judged("A", None, "0")]
    some = tally(outcomes(made, answered(), BOTH)["j"])
    assert (some.judged, some.none, some.net) == (1, 1, 1.0)
    assert "1 without verdict" in str(some)
    assert "not judged" in str(tally([]))


def test_looks_at_other_texts_or_by_other_judges_are_not_added_up() -> None:
    old = [one.model_copy(update={"texts": "old"}) for one in judged("B", "A")]
    straight, swapped = judged("A", "B")
    (outcome,) = outcomes([*old, straight], answered(), BOTH)["j"]
    assert outcome.result == "none"  # the swapped look at these texts has not been made
    assert outcomes(old, answered(), BOTH) == {}
    two = [straight, swapped.model_copy(update={"judge": "another"})]
    found = outcomes(two, answered(), BOTH)
    assert {name: [one.result for one in all_] for name, all_ in found.items()} == {
        "j": ["none"],
        "another": ["none"],
    }


def test_what_was_judged_is_not_judged_again_unless_texts_or_the_judge_have_changed() -> None:
    questions = [Question("1", "generic", "?"), Question("9", "generic", "never answered")]
    all_ = looks(questions, answered(), [BOTH])
    assert [(look.order, look.shown.a.split()[-1]) for look in all_] == [
        ("straight", "sgd"),
        ("swapped", "direct"),
    ]
    done = [one.model_copy(update={"judge": "m at http://e"}) for one in judged("A", "B")]
    assert left(all_, [done[0], done[1].model_copy(update={"texts": "old"})]) == [all_[1]]
    for model, missing in (("m", []), (None, []), ("n", all_)):
        assert left(all_, made_by(done, "http://e", model)) == missing
    assert left(all_, made_by(done, "http://f", None)) == all_


def test_coding_and_math_are_judged_with_a_reference_or_not_at_all() -> None:
    asked = [Question("0", "coding", "?"), Question("1", "math", "?", "4")]
    assert {look.question.id for look in looks(asked, answered(), [BOTH])} == {"1"}
    assert [one.id for one in without_reference(asked)] == ["0"]
    untold = [one.model_copy(update={"category": "math"}) for one in judged("A", "B")]
    assert outcomes(untold, answered(), BOTH) == {}
    told = [one.model_copy(update={"reference": True}) for one in untold]
    assert [one.result for one in outcomes(told, answered(), BOTH)["j"]] == ["win"]


@pytest.mark.parametrize("text", ["sgd", "sgd:", "sgd:sgd", "a:b:c", ""])
def test_a_pair_of_methods_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        read_pairs(text)


# --- by hand ---


@given(st.integers(0, 2**32), st.data())
def test_verdicts_come_back_as_they_were_meant(seed: int, data: st.DataObject) -> None:
    pairs, key = blind.export(recorded(), ["1", "2", "61", "none"], BOTH, seed)
    meant = {pair.name: data.draw(st.sampled_from(VERDICTS)) for pair in pairs}
    rows = [",".join(blind.COLUMNS), *(f"{name},{v},why" for name, v in meant.items())]
    read = blind.read_sheet(
        "\n".join(rows).encode(), blind.Key.model_validate_json(key.model_dump_json())
    )
    found = blind.outcomes(read)
    assert sum(map(len, found.values())) == len(pairs) == 3
    for pair in pairs:
        line = key.pairs[pair.name]
        best = {"A": pair.answer_a, "B": pair.answer_b}.get(meant[pair.name], "")
        outcome = next(o for o in found[line.first, line.second] if o.question == line.question)
        wanted = {line.first: "win", line.second: "loss"}.get(best.rpartition(" ")[2], "tie")
        assert outcome.result == wanted


def test_the_same_seed_gives_the_same_pages_and_no_page_names_a_method() -> None:
    one, two = (blind.export(recorded(), ["1", "2", "61"], BOTH, 7) for _ in range(2))
    assert one == two
    assert blind.export(recorded(), ["1", "2", "61"], BOTH, 8) != one
    pages = re.sub(r"> # Of .*", "", blind.pages(one[0], {"1": "Why?"}))
    assert "Question 1: Why?" in pages
    assert not re.search(r"sgd|sot|direct", pages + blind.sheet(one[0]))


def test_sides_change_about_half_of_the_time() -> None:
    swaps = [
        line.swapped
        for seed in range(60)
        for line in blind.export(recorded(), ["1", "2"], BOTH, seed)[1].pairs.values()
    ]
    assert 0.35 < sum(swaps) / len(swaps) < 0.65


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A folder of recorded answers."""
    folder = tmp_path / "run"
    with records_of(folder).adding() as adder:
        for one in recorded().all():
            adder.add(one)
    return folder


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """The file of their questions, and one more."""
    file = tmp_path / "questions.jsonl"
    lines = [{"question_id": id_, "question": id_} for id_ in ("1", "2", "61", "9")]
    file.write_text("\n".join(map(json.dumps, lines)))
    return file


def exporting(run_folder: Path, asked: Path, key: str) -> Result:
    """Run `blind-export` beside the folder."""
    argv = ["blind-export", str(run_folder), "--questions", str(asked), "--key"]
    argv += [str(run_folder.parent / key), "--into", str(run_folder.parent / "blind")]
    return CliRunner().invoke(app, [*argv, "--against", "sgd:direct,sgd:sot"])


def test_no_packet_has_a_text_twice_nor_the_pairs_of_another(run_folder: Path, asked: Path) -> None:
    done = exporting(run_folder, asked, "kept")
    assert (done.exit_code, done.stderr.count("3 pairs, 1 questions left out")) == (0, 2)
    folder = run_folder.parent
    sheets: list[str] = []
    for packet in ("sgd-direct", "sgd-sot"):
        read = (folder / "blind" / packet / "pairs.md").read_text()
        texts = re.findall(r"> # Of .*", read)
        assert len(set(texts)) == len(texts) == 6
        key = blind.read_key(folder / "kept" / f"{packet}.json")
        assert {f"{line.first}-{line.second}" for line in key.pairs.values()} == {packet}
        sheet = (folder / "blind" / packet / "verdicts.csv").read_text()
        sheets += sheet.splitlines()[1:]
    assert len(set(sheets)) == 6
    with pytest.raises(blind.WrongSheet, match="there is no pair"):
        blind.read_sheet(sheet.encode(), blind.read_key(folder / "kept" / "sgd-direct.json"))


@pytest.mark.parametrize(
    "command",
    [
        "record RUN FILE --nats-url nats://127.0.0.1:1",
        "judge RUN --questions FILE --url http://127.0.0.1:1",
        "blind-export RUN --questions FILE --into RUN/blind --key RUN/key",
        "pack RUN --questions FILE --tokenizer-url http://127.0.0.1:1 --into RUN/packed",
        "side-by-side RUN --ids 1 --questions FILE",
    ],
)
def test_no_answer_is_taken_for_one_to_a_question_that_has_changed(
    run_folder: Path, asked: Path, command: str
) -> None:
    (run_folder / "run.json").write_text(
        '{"run": "r", "common": {}, "engines": {"nats_url": "nats://127.0.0.1:1"}}'
    )
    asked.write_text(asked.read_text().replace('"question": "2"', '"question": "Two?"'))
    told = command.replace("RUN", str(run_folder)).replace("FILE", str(asked))
    refused = CliRunner().invoke(app, told.split())
    assert refused.exit_code == 2
    assert "2: recorded with another text" in " ".join(refused.stderr.split())


@pytest.mark.parametrize("key", ["blind", "blind/key", "run/../blind/key"])
def test_no_key_is_written_where_the_judge_reads(run_folder: Path, asked: Path, key: str) -> None:
    refused = exporting(run_folder, asked, key)
    assert refused.exit_code == 2
    assert "where the judge reads" in refused.stderr
    assert not (run_folder.parent / "blind").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[1:], "first line"),
        (lambda rows: [*rows, "999,A,"], "there is no pair '999'"),
        (lambda rows: [*rows, "001,A,"], "pair 001 a second time"),
        (lambda rows: rows[:-1], "no verdict on pair 003"),
        (lambda rows: [*rows[:-1], "003,,"], "no verdict on pair 003"),
        (lambda rows: [*rows[:-1], "003,maybe,"], "'maybe' is not A, B or tie"),
        (lambda rows: [], "first line"),
    ],
)
def test_a_sheet_that_is_not_right_says_what_is_wrong(
    change: Callable[[list[str]], list[str]], said: str
) -> None:
    _, key = blind.export(recorded(), ["1", "2", "61"], BOTH, 1)
    rows = [",".join(blind.COLUMNS), *(f"{name},A," for name in key.pairs)]
    with pytest.raises(blind.WrongSheet, match=said):
        blind.read_sheet("\n".join(change(rows)).encode(), key)


def test_a_sheet_as_a_spreadsheet_saves_it_is_read() -> None:
    _, key = blind.export(recorded(), ["1"], BOTH, 1)
    saved = "\ufeffPair,Verdict,Remark\r\n1,a,\r\n,,\r\n"
    assert len(blind.read_sheet(saved.encode(), key)) == 1


def test_a_file_that_is_no_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text("[]")
    with pytest.raises(blind.WrongSheet):
        blind.read_key(tmp_path / "key.json")


@given(st.binary() | st.text().map(str.encode))
def test_whatever_a_sheet_holds_is_refused_in_words(data: bytes) -> None:
    _, key = blind.export(recorded(), ["1"], BOTH, 1)
    for head in (b"", b"pair,verdict,remark\n"):
        with pytest.raises(blind.WrongSheet):
            blind.read_sheet(head + data, key)
