"""Is the language of the question kept: by plans, and by the texts of points.

`python -m bench.languages --engine URL` has an engine plan the questions of
`bench.language_samples`, and write two points of each, whose titles are given: the texts thus say
nothing about the plans. What language came is told by py3langid, which the services do not use,
among the languages asked for. For each language: how many plans and texts are in it, and what a
change of the prompt could spoil: the length of the texts, headings, and words of the instructions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
import uvloop
from py3langid.langid import MODEL_DIR, MODEL_FILE, LanguageIdentifier

from bench.language_samples import SAMPLES, Sample
from bench.plan_figures import read_plan
from bench.plans import LIMITS, MAX_NODES, ask
from bench.questions import Question
from proto.messages import DecodeNode, NodeSpec
from proto.names import Pool
from services.runtime import logs
from services.runtime.engine import EngineClient
from services.worker.prompts import node_call
from services.worker.text import TextFilter

#: Points of each question that are written: not the first, which the example shows too.
POINTS: Final = (2, 3)
BUDGET_TOKENS: Final = 40
_HEADING: Final = re.compile(r"^\s*(?:#|\*\*[^*\n]+\*\*:?\s*$|\d+\.\s)", re.MULTILINE)
_INSTRUCTION: Final = re.compile(r"\[Write|\bpart \d|\(\d+ sentences?\)|Parts of the answer", re.I)


@dataclass(frozen=True, slots=True)
class Wrote:
    """What an engine wrote in reply to a question.

    Args:
        sample: the question.
        titles: of its plan; empty where it wrote none.
        texts: of points, as a worker would publish them.
        tokens: of the texts.
    """

    sample: Sample
    titles: tuple[str, ...]
    texts: tuple[str, ...]
    tokens: int


async def measure(url: str, samples: Sequence[Sample]) -> list[Wrote]:
    """Have all questions planned, and two points of each written."""
    client = EngineClient(url, limits=LIMITS)
    try:
        return [await _wrote(client, sample) for sample in samples]
    finally:
        await client.close()


async def _wrote(client: EngineClient, sample: Sample) -> Wrote:
    question = Question(sample.question, sample.language, sample.question)
    plan = read_plan(
        await ask(client, question, "sgd", constrained=True), checked=True, max_nodes=MAX_NODES
    )
    written = [await _text(client, sample, point) for point in POINTS]
    made = Wrote(
        sample,
        tuple(node.summary for node in plan.nodes),
        tuple(text for text, _ in written),
        sum(tokens for _, tokens in written),
    )
    typer.echo(f"{sample.language} {sample.question}\n{made.titles}\n{made.texts}", err=True)
    return made


async def _text(client: EngineClient, sample: Sample, point: int) -> tuple[str, int]:
    """Return the text of a point, and of how many tokens the engine made it."""
    lines = tuple(
        f"{number}. {title} | easy short" for number, title in enumerate(sample.titles, 1)
    )
    work = DecodeNode(
        request="bench",
        node=NodeSpec(id=point, summary=sample.titles[point - 1], budget_tokens=BUDGET_TOKENS),
        attempt=1,
        pool=Pool.SMALL,
        mode="sgd",
        question=sample.question,
        skeleton=lines,
        deadline_at=0,
    )
    text = TextFilter(work.node, work.skeleton)
    async with client.stream(node_call(work)) as stream:
        async for chunk in stream:
            text.feed(chunk.text)
            if text.is_over:
                break
    done = stream.so_far() if text.is_over else stream.completion
    return text.finish(done.finish_reason), done.usage.generated_tokens


# --- the table --------------------------------------------------------------------------


#: Says whether a text is in a language (ISO 639-1).
IsIn = Callable[[str, str], bool]


def judge(languages: Collection[str]) -> IsIn:
    """Return what tells a text's language by py3langid, among `languages`."""
    identifier = LanguageIdentifier.from_modelpath(str(MODEL_DIR / MODEL_FILE))
    identifier.set_languages(sorted(languages))

    def is_in(text: str, language: str) -> bool:
        return bool(text.strip()) and identifier.classify(text)[0] == language

    return is_in


def table(wrote: Sequence[Wrote], is_in: IsIn) -> str:
    """Return the figures by language, as Markdown."""
    groups: dict[str, list[Wrote]] = {}
    for one in wrote:
        groups.setdefault(one.sample.language, []).append(one)
    head = ("language", "plans in it", "points in it", "tokens a point", "headings", "instructions")
    rows = [(name, *_figures(found, name, is_in)) for name, found in groups.items()]
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _figures(found: Sequence[Wrote], language: str, is_in: IsIn) -> tuple[str, ...]:
    texts = [text for one in found for text in one.texts]
    plans = sum(is_in("\n".join(one.titles), language) for one in found)
    return (
        f"{plans} of {len(found)}",
        f"{sum(is_in(text, language) for text in texts)} of {len(texts)}",
        f"{sum(one.tokens for one in found) / len(texts):.0f}",
        str(sum(bool(_HEADING.search(text)) for text in texts)),
        str(sum(bool(_INSTRUCTION.search(text)) for text in texts)),
    )


def main(
    engine: Annotated[str, typer.Option(help="URL of an engine that runs")],
    language: Annotated[
        list[str] | None, typer.Option(help="only this one; may be repeated")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="write the table here, as Markdown")] = None,
) -> None:
    """Have questions in several languages planned and answered, and count what kept theirs."""
    logs.configure("error", "console")
    asked = [one for one in SAMPLES if not language or one.language in language]
    is_in = judge({one.language for one in SAMPLES})
    text = table(uvloop.run(measure(engine, asked)), is_in)
    typer.echo(text)
    if report:
        report.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
