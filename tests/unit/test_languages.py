"""Which language a text is in, and that a node's writer is shown an example in it."""

from __future__ import annotations

import pytest

from bench.language_samples import SAMPLES, Sample
from bench.languages import Wrote, table
from proto.messages import DecodeNode, NodeSpec, Turn
from proto.names import Pool
from services.runtime.languages import Language, language_of
from services.worker.examples import EXAMPLES, Example
from services.worker.prompts import node_call

ENGLISH = EXAMPLES["en"].first


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.question)
def test_a_question_is_in_its_language(sample: Sample) -> None:
    assert language_of(sample.question) == sample.language


@pytest.mark.parametrize(
    ("question", "language"),
    [
        ("Was ist Docker?", "de"),
        ("Explain RBAC to me.", "en"),
        ("Explique-moi Docker", "fr"),
        ("Perché il cielo è blu?", "it"),
        ("Como fazer pão de queijo em casa?", "pt"),
        ("¿Por qué?", "es"),
        ("为什么?", "zh"),
        ("用Python写一个函数", "zh"),
        ("ما هي Docker؟", "ar"),
        ("What does 谢谢 mean, and when do I say it?", "en"),
    ],
)
def test_a_few_words_are_enough(question: str, language: Language) -> None:
    assert language_of(question) == language


@pytest.mark.parametrize(
    "text",
    [
        "",
        "123 + 4? 🎉 \ud800",
        "Python?",
        "日本の首都はどこですか",
        "한국의 수도는 어디입니까?",
        "چرا آسمان آبی است؟",
        "Почему небо голубое?",
        "Hvordan går det?",
        "SELECT * FROM orders;",
    ],
)
def test_a_language_without_an_example_is_taken_for_no_other(text: str) -> None:
    assert language_of(text) is None


@pytest.mark.parametrize("language", EXAMPLES)
def test_an_example_is_in_its_language(language: Language) -> None:
    example: Example = EXAMPLES[language]
    for text in (example.question, example.first, example.third):
        assert language_of(text) == language


def work(question: str, context: tuple[Turn, ...] = ()) -> DecodeNode:
    return DecodeNode(
        request="r1",
        node=NodeSpec(id=1, summary="Point 1"),
        attempt=1,
        pool=Pool.SMALL,
        mode="sgd",
        question=question,
        context=context,
        skeleton=("1. Point 1 | easy short",),
        deadline_at=0,
    )


def shown(question: str, *said: tuple[str, str]) -> str:
    """Return the text of the example that the writer of a node is shown."""
    turns = tuple(Turn.model_validate({"role": role, "content": text}) for role, text in said)
    return node_call(work(question, turns)).messages[2].content


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.question)
def test_a_writer_is_shown_an_example_in_the_questions_language(sample: Sample) -> None:
    assert language_of(shown(sample.question)) == sample.language


def test_a_question_that_shows_no_language_is_in_that_of_the_question_before_it() -> None:
    said = (("user", "What is a pod?"), ("user", "Was ist ein Pod?"), ("assistant", "It is."))
    assert shown("Kubernetes?", *said) == EXAMPLES["de"].first
    assert shown("Why is that?", *said) == ENGLISH


def test_instructions_have_no_say_in_the_language_of_the_example() -> None:
    assert shown("Kubernetes?", ("system", "Antworte kurz und ohne Listen.")) == ENGLISH


def test_where_no_language_shows_the_example_is_english() -> None:
    assert shown("Kubernetes?") == ENGLISH


@pytest.mark.parametrize("language", EXAMPLES)
def test_examples_ask_for_texts_of_the_same_length(language: Language) -> None:
    one, other = EXAMPLES[language], EXAMPLES["en"]
    for text, english in ((one.first, other.first), (one.third, other.third)):
        share = len(text.encode()) / len(english.encode())
        assert 0.6 < share < 2.0


def test_the_table_counts_what_kept_its_language_and_what_a_prompt_may_spoil() -> None:
    german, english = (
        next(one for one in SAMPLES if one.language == name) for name in ("de", "en")
    )
    wrote = [
        Wrote(german, ("Wege und Platz für das Rad",), ("Es ist gut so.", "It is the same."), 20),
        Wrote(german, (), ("## Räder\nSie sind da.", "[Write part 2: das ist es]"), 40),
        Wrote(english, ("What it is",), ("This is part 2 of it.", "That is all there is."), 30),
    ]
    assert table(wrote, lambda text, name: language_of(text) == name).splitlines()[2:] == [
        "| de | 1 of 2 | 3 of 4 | 15 | 1 | 1 |",
        "| en | 1 of 1 | 2 of 2 | 15 | 0 | 1 |",
    ]
