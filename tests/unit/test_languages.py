"""Which language a text is in, and that a node's writer is shown an example in it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.language_samples import SAMPLES, Sample
from bench.languages import Wrote, judge, table
from proto.messages import DecodeNode, NodeSpec, Turn
from proto.names import Pool
from services.runtime import sentences
from services.runtime.languages import _LANGUAGES, Language, language_of
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
        ("Quali sono i vantaggi del lavoro da casa?", "it"),
        ("Come posso imparare a cucinare senza spendere troppo?", "it"),
        ("Quais são as vantagens do teletrabalho?", "pt"),
        ("O que devo saber antes de ter um cão em casa?", "pt"),
        ("Vorteile der Solarenergie", "de"),
        ("Wer war Ludwig van Beethoven?", "de"),
        ("Wie funktionieren Work-Life-Balance und Home-Office?", "de"),
        ("为什么?", "zh"),
        ("用Python写一个函数", "zh"),
        ("ما هي Docker؟", "ar"),
        ("What does 谢谢 mean, and when do I say it?", "en"),
    ],
)
def test_a_few_words_are_enough(question: str, language: Language) -> None:
    assert language_of(question) == language


ENGLISH_QUESTIONS = [
    "What's Python's GIL?",
    "Compare Apple's and Google's strategies",
    "Compare Apple’s and Microsoft’s cloud strategies",
    "Compare Plato's and Aristotle's ethics",
    "What's Germany's energy policy?",
    "Explain Newton's laws, Kepler's laws",
    "Let's compare Kant's ethics with Hume's",
    "Discuss China's, India's and Brazil's growth",
    "Ideas: mum's 60th, dad's 65th",
    "Describe Beethoven's life",
    "Describe Hamlet's and Macbeth's flaws",
    "Compare men's vs women's football",
    "Analyse Britain's exit, Europe's response",
    "Who's who in Tolkien's world?",
    "I'd say he'll win; what d'you think?",
    "Compare Los Angeles and Las Vegas",
    "Compare El Salvador and La Paz",
    "Los Angeles or Las Vegas: pros, cons",
    "Best San Diego and Los Cabos hotels",
    "Plan a week in Las Palmas de Gran Canaria",
    "Pros and cons of Rio de Janeiro vs São Paulo",
    "Plan La Paz, El Alto trip",
    "Tour de France plus Giro: history",
    "Draft à la carte ideas for a café du jour",
    "Explain the coup de grâce and the tour de force",
    "Summarize Marx's Das Kapital",
    "Summarize À la recherche du temps perdu",
    "Why did the men die in the war?",
    "Do people in comas die?",
    "Was Napoleon in Egypt?",
    "Do as I do in an hour",
    "Can a man of war come in?",
    "What does 'Ich habe keine Ahnung, wie das geht' mean?",
    "Translate: je ne sais pas où est la gare et pourquoi",
    "Translate 谢谢你的帮助我很感激",
    "Rewrite this: как дела, что нового, где ты был",
    "d4d2a1 l0d5a2 Explain light",
    "WHAT IS THE GIL?",
]


@pytest.mark.parametrize("question", ENGLISH_QUESTIONS)
def test_an_english_question_has_the_english_example_whatever_was_asked_before(
    question: str,
) -> None:
    assert shown(question, ("user", "Was ist ein Pod, und wie wird er erstellt?")) == ENGLISH


@pytest.mark.parametrize(
    "question",
    ["Compare Las Vegas, Los Angeles, San José", "Pasta e fagioli a la d'oro", "e d l n s a y o"],
)
def test_names_and_letters_are_no_foreign_language(question: str) -> None:
    assert shown(question) == ENGLISH


_COMMON = st.lists(st.sampled_from(sorted(_LANGUAGES)), max_size=30)
_ONLY_ENGLISH = [word for word, languages in _LANGUAGES.items() if languages == ("en",)]


@given(_COMMON, st.sampled_from(_ONLY_ENGLISH), _COMMON)
def test_one_word_that_only_english_has_makes_a_text_english(
    before: list[str], word: str, after: list[str]
) -> None:
    assert language_of(" ".join([*before, word, *after])) == "en"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "123 + 4? 🎉 \ud800",
        "Python?",
        "Hvordan går det?",
        "Mi a napenergia előnye és hátránya?",
        "SELECT * FROM orders;",
        "d4d2a1 [12 auto] light light",
        "und und und und",
    ],
)
def test_what_is_of_no_language_here_shows_none(text: str) -> None:
    assert language_of(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "日本の首都はどこですか",
        "한국의 수도는 어디입니까?",
        "چرا آسمان آبی است؟",
        "Почему небо голубое?",
        "Γιατί είναι μπλε ο ουρανός;",
    ],
)
def test_a_question_in_a_script_without_an_example_has_the_english_one(text: str) -> None:
    assert language_of(text) == "other"
    assert shown(text, ("user", "Was ist ein Pod?")) == ENGLISH


@pytest.mark.parametrize("text", ["解释π的历史", "比较α波和β波", "解释ABC公司的战略"])
def test_letters_of_formulas_and_names_leave_chinese_chinese(text: str) -> None:
    assert language_of(text) == "zh"


def test_what_is_asked_in_german_about_an_english_document_is_taken_for_english() -> None:
    document = "The quick brown fox is in the house, and it was there for a day. " * 40
    assert language_of(f"Fasse diesen Text auf Deutsch zusammen: {document}") == "en"


@pytest.mark.parametrize("language", EXAMPLES)
def test_an_example_is_in_its_language(language: Language) -> None:
    example: Example = EXAMPLES[language]
    for text in (example.question, "\n".join(example.titles), example.first, example.third):
        assert language_of(text) == language


def test_an_example_is_in_its_language_by_another_judge_too() -> None:
    is_in = judge(EXAMPLES)
    for language, example in EXAMPLES.items():
        for text in ("\n".join(example.titles), example.first, example.third):
            assert [name for name in EXAMPLES if is_in(text, name)] == [language]


def test_chinese_has_its_own_punctuation() -> None:
    example = EXAMPLES["zh"]
    written = "".join((example.question, *example.titles, example.first, example.third))
    samples = "".join(sample.question for sample in SAMPLES if sample.language == "zh")
    assert written.isascii() is samples.isascii() is False
    assert [char for char in written + samples if char.isascii()] == []


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
    example = EXAMPLES[language]
    assert [len([*sentences.ends(text)]) for text in (example.first, example.third)] == [2, 3]


def test_the_table_counts_what_kept_its_language_and_what_a_prompt_may_spoil() -> None:
    german, english = (
        next(one for one in SAMPLES if one.language == name) for name in ("de", "en")
    )
    wrote = [
        Wrote(german, ("Wege und Platz für das Rad",), ("Es ist gut so.", "It is the same."), 20),
        Wrote(german, (), ("## Räder\nSie sind da.", "[Write part 2: das ist es]"), 40),
        Wrote(english, ("What it is",), ("This is part 2 of it.", "That is all there is."), 30),
    ]

    def is_in(text: str, language: str) -> bool:
        return ("de" if re.search("Wege|ist|sind", text) else "en") == language

    assert table(wrote, is_in).splitlines()[2:] == [
        "| de | 1 of 2 | 3 of 4 | 15 | 1 | 1 |",
        "| en | 1 of 1 | 2 of 2 | 15 | 0 | 1 |",
    ]
