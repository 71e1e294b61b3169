"""What `bench.languages` counts by: an identifier that the services do not use."""

from __future__ import annotations

from bench.language_samples import SAMPLES
from bench.languages import judge


def test_the_judge_of_languages_knows_questions_and_titles_from_those_of_the_others() -> None:
    languages = {one.language for one in SAMPLES}
    is_in = judge(languages)
    for sample in SAMPLES:
        for text in (sample.question, "\n".join(sample.titles)):
            assert {name for name in languages if is_in(text, name)} == {sample.language}, text
    assert not any(is_in(" \n", name) for name in languages)
