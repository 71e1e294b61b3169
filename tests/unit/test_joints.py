"""A joint changes the beginning of a text for the better, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.assembler.joints import MAX_LEAD_CHARS, head, joined, tail

BEFORE = "Rent in the centre has doubled.\n\nIt takes 40 percent of what we earn."
OLD = "The commute from the suburbs takes 45 minutes."
TEXT = f"{OLD} It is paid.\n\n- by bus\n- by bike"


def polished(reply: str, text: str = TEXT) -> str:
    return joined(BEFORE, text, reply, "stop")


@pytest.mark.parametrize(
    "reply",
    [
        "Against that, the commute from the suburbs takes 45 minutes.",
        '"Then again, the commute from the suburbs takes 45 minutes."',
        "At 40 percent for rent, the commute from the suburbs takes 45 minutes.",
    ],
)
def test_a_sentence_that_says_the_same_is_taken_and_nothing_else_changes(reply: str) -> None:
    assert polished(reply) == reply.strip('"') + TEXT[len(OLD) :]


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "No.",
        "Against that.",
        "The commute from the suburbs takes 54 minutes.",
        "The commute from the suburbs takes 45 minutes, or 90 both ways.",
        "Der Weg aus den Vororten dauert 45 Minuten.",
        "Against that, the commute from the suburbs takes 45 minutes",
        "**Against that**, the commute from the suburbs takes 45 minutes.",
        "- The commute from the suburbs takes 45 minutes.",
        "Here is the sentence: The commute from the suburbs takes 45 minutes.",
        f"The commute from the suburbs takes 45 minutes, {'which is a lot, ' * 9}really.",
        "The commute from the suburbs takes\n45 minutes.",
        "Against that, the commute from the suburbs never takes 45 minutes.",
        "Hardly ever the commute from the suburbs takes 45 minutes.",
        "No. By car, the commute from the suburbs takes 45 minutes.",
        "Against that, all the 41 days, the commute from the suburbs takes 45 minutes.",
    ],
)
def test_a_bad_reply_leaves_the_joint_as_it_was(reply: str) -> None:
    assert polished(reply) == TEXT


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Aspirin is safe for children.", "However, aspirin is not safe for children."),
        ("Always wash the wound first.", "Besides, never wash the wound first."),
        ("Marie Curie found radium.", "Later, Pierre Curie found radium."),
        ("It cost 5 million to build.", "Then, it cost 5 billion to build."),
        ("12 died and 30 recovered.", "Of these, 30 died and 12 recovered."),
    ],
)
def test_a_sentence_that_says_another_thing_in_the_same_letters_is_not_taken(
    old: str, new: str
) -> None:
    assert polished(new, f"{old} More.") == f"{old} More."


@given(
    st.lists(st.sampled_from([OLD, OLD[1:], "t", "Besides,", "not", "12", "40", ".", ",", "好"]))
)
def test_whatever_is_taken_has_the_old_sentence_word_for_word(words: list[str]) -> None:
    reply = " ".join(words)
    taken = polished(reply)
    assert taken == TEXT or taken.removesuffix(TEXT[len(OLD) :]).endswith(OLD[1:])


def test_a_reply_that_was_cut_off_leaves_the_joint_as_it_was() -> None:
    assert joined(BEFORE, TEXT, f"Then, {OLD}", "length") == TEXT


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Short one.", None),
        ("- A list item that is long enough to count.", None),
        ("## A heading that is long enough to count.", None),
        ("```python\nprint('a long enough line of code.')\n```", None),
        ("| a table | with long enough cells to count. |", None),
        ("1. A numbered point that is long enough.", None),
        ("> A quotation that is long enough to count.", None),
        ("No end of a sentence in this long line\nAnd more.", None),
        (f"{'Too long, ' * 60}really.", None),
        (
            "The company Acme Holdings Inc. was founded in 1990. Then more.",
            "The company Acme Holdings Inc. was founded in 1990.",
        ),
        (
            "Ein Garten braucht viel, z. B. Wasser und Licht. Dann mehr.",
            "Ein Garten braucht viel, z. B. Wasser und Licht.",
        ),
        ("Version 2.5 came out in spring 2021. Then more.", "Version 2.5 came out in spring 2021."),
        (
            "城市的房租在过去十年里涨了一倍多,很多人搬到了郊区。通勤时间更长了。",
            "城市的房租在过去十年里涨了一倍多,很多人搬到了郊区。",
        ),
    ],
)
def test_only_a_sentence_of_plain_prose_is_rewritten(text: str, sentence: str | None) -> None:
    assert head(text) == sentence


def test_chinese_is_polished_too_and_stays_chinese() -> None:
    old = "城市的房租在过去十年里涨了一倍多,很多人搬到了郊区。"
    new = "因此,城市的房租在过去十年里涨了一倍多,很多人搬到了郊区。"
    assert joined(BEFORE, f"{old}更多。", new, "stop") == f"{new}更多。"
    assert (
        joined(BEFORE, f"{old}更多。", "Rents have doubled in ten years, so many moved.", "stop")[
            : len(old)
        ]
        == old
    )


def test_the_tail_is_the_end_of_the_last_line() -> None:
    assert tail(BEFORE) == "It takes 40 percent of what we earn."
    assert len(tail("x" * 5000)) <= 300


@given(st.text(max_size=200), st.text(max_size=300), st.sampled_from(["stop", "length"]))
def test_whatever_comes_back_a_text_loses_nothing_after_its_first_sentence(
    text: str, reply: str, reason: str
) -> None:
    after = joined(BEFORE, text, reply, reason)  # type: ignore[arg-type]
    first = head(text)
    assert after == text or (first is not None and after.endswith(text[len(first) :]))
    assert len(after) <= len(text) + MAX_LEAD_CHARS
