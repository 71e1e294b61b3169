"""Which language a text is in, of those that prompts have examples in. Pure.

A small model writes in the language of the example that it is shown, whatever its rules say
(docs/adr/0028-language.md). A library for this knows a hundred languages, which is of no use
without as many examples, and takes 60 MB a process and a second to load.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, Literal

from proto.messages import Turn

Language = Literal["en", "zh", "de", "ar", "fr", "es", "it", "pt"]
#: What a text is taken for that shows no language.
DEFAULT: Final[Language] = "en"

#: Common words, those of questions above all, as questions are short. Some are of two languages:
#: what tells is how many of them are found.
_WORDS: Final[Mapping[Language, str]] = {
    "en": """a about an and any are as at be best between by can could did do does
        explain for from give had has have how i if in is it keep me most my need
        not of on or our should some that the their there these they this to us was
        we were what when where which who why will with would write you your""",
    "de": """als am an auch auf aus bei beschreibe das dem den der des die drei
        durch ein eine einem einen einer er erkläre es für gib gibt haben hat hätte
        ich ihre im in ist kann können könnte man mehr mein meine mich mir mit nach
        nenne nicht nie oder schreibe sein sich sie sind soll sollte um und unser
        unsere unserer von vor wann war warum was welche wenn wer werden wie wieder
        wird wo wäre zu zum zur über""",
    "fr": """au aux avec avoir ce cela ces comment d dans de des doit doivent donne
        du décris elle en entre est et explique faire faut il ils j jamais je l la
        le les leur ma mes moi mon n ne nos notre nous on ont ou où par pas peut
        peuvent plus pour pourquoi qu que quel quelle quelles quels qui quoi s sa se
        ses si son sont sur un une votre vous y à écris être""",
    "es": """al como con cuando cuál cuáles cómo dame de debería debo del describe
        donde dónde el en entre es escribe esta está están explica gente hace hacer
        hay hubiera la las lo los me mi mis más no nuestra nuestro nunca o para pero
        por porque puede puedo que quién qué se ser si sin sobre son su sus tiene un
        una y ya""",
    "it": """a al alla che chi come con cosa cui d da dal dammi degli dei del della
        delle descrivi di dovrebbe dovrei e essere fare fosse gli ha hanno ho i il
        in io l la le lo loro ma mai mi mia mio nei nel nella non nostra nostro o
        per perché più posso può qual quale quali quando quello questo scrivi se si
        sono spiega su sul un una uno è""",
    "pt": """a ao aos as com como da das de descreva deve do dos e ela ele em entre
        escreva essa esse está eu explique fazer mais me meu minha na nas no nos
        nossa nosso nunca não o os ou para pela pelo pode podem por porque posso
        quais qual quando que quem se ser seu sua são tem tivesse um uma umas uns à
        é""",
}

_LANGUAGES: Final[Mapping[str, tuple[Language, ...]]] = {
    word: tuple(language for language in _WORDS if word in _WORDS[language].split())
    for words in _WORDS.values()
    for word in words.split()
}
_WORD: Final = re.compile(r"[^\W\d_]+")
#: Letters of Persian, Urdu and others that Arabic is written without.
_NOT_ARABIC: Final = frozenset("پچژگکیٹڈڑںھہے")
#: So many common words say more than a name or a loan word does; fewer say nothing.
_MIN_WORDS: Final = 2
#: Share of letters above which a script other than Latin is the text's.
_MIN_SHARE: Final = 0.3
#: What is looked at of a text: enough to tell, and no more of one that holds a whole document.
_LOOKED_AT_CHARS: Final = 2000


def language_of(text: str) -> Language | None:
    """Return the language of `text`, or None where it is none of those, or does not show.

    By its letters; where these are Latin, by common words, of which one language must have more
    than all others. Names and code are Latin in any language: fewer letters of another script tell.
    """
    return _language_of(text[:_LOOKED_AT_CHARS])


def language_asked(question: str, context: Sequence[Turn]) -> Language:
    """Return the language of a question; where it shows none, that of what was asked before it.

    It follows from the request alone, so that all its nodes are shown the same example.

    Args:
        question: as the client wrote it.
        context: what was said before, oldest first.
    """
    asked = [turn.content for turn in reversed(context) if turn.role == "user"]
    found = (language_of(text) for text in (question, *asked))
    return next((language for language in found if language), DEFAULT)


@lru_cache(maxsize=256)
def _language_of(text: str) -> Language | None:
    letters = Counter(_script(char) for char in text if char.isalpha())
    others = {script for script in letters if script != "LATIN"}
    if sum(letters[script] for script in others) <= _MIN_SHARE * letters.total():
        return _by_words(text)
    if others <= {"CJK"}:
        return "zh"
    return "ar" if others <= {"ARABIC"} and not _NOT_ARABIC & set(text) else None


@lru_cache(maxsize=4096)
def _script(char: str) -> str:
    """Return the first word of a character's name: LATIN, ARABIC, CJK, HIRAGANA and others."""
    return unicodedata.name(char, "").partition(" ")[0]


def _by_words(text: str) -> Language | None:
    words = _WORD.findall(text.casefold())
    found = Counter(language for word in words for language in _LANGUAGES.get(word, ()))
    ranked = found.most_common(2)
    if not ranked or ranked[0][1] < _MIN_WORDS:
        return None
    return None if len(ranked) > 1 and ranked[0][1] == ranked[1][1] else ranked[0][0]
