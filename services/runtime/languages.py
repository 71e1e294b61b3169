"""Which language a text is in, of those that prompts have examples in. Pure.

A small model writes in the language of the example that it is shown, whatever its rules say
(docs/adr/0028-language.md). A library for this knows a hundred languages, which is of no use
without as many examples, and takes 60 MB a process and a second to load.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, Literal

Language = Literal["en", "zh", "de", "ar", "fr", "es", "it", "pt"]
#: What a text is taken for that shows no language.
DEFAULT: Final[Language] = "en"

#: Common words, those of questions above all, as questions are short. Some are of two languages:
#: what tells is how many of them are found.
_WORDS: Final[Mapping[Language, str]] = {
    "en": """a an and any are as at be by can could did do does explain for from give had has have
        how i if in is it me my not of on or our should some that the their there these they this
        to us was we were what when where which who why will with would write you your""",
    "de": """als am an auch auf aus bei beschreibe das dem den der des die drei ein eine einem einen
        einer er erkläre es für gib gibt hat ich im in ist kann können man mehr mein meine mich mir
        mit nach nenne nicht oder schreibe sich sie sind soll sollte um und von vor wann war warum
        was welche wenn wer werden wie wird wo wäre zu zum zur über""",
    "fr": """au aux avec ce ces comment d dans de des donne du décris elle en est et explique faire
        faut il ils j je l la le les leur ma mes moi mon n ne nous on ont ou où par pas peut plus
        pour pourquoi qu que quel quelle quelles quels qui quoi s sa se ses si son sont sur un une
        vous y à écris""",
    "es": """al como con cuando cuál cuáles cómo dame de debo del describe donde dónde el en es
        escribe esta está están explica gente hay la las lo los me mi mis más no o para pero por
        porque puede puedo que qué quién se ser si sin sobre son su sus un una y ya""",
    "it": """a al alla che chi come con cosa cui da dal dammi dei del della delle descrivi di e gli
        ha ho i il in io la le lo loro ma mi mia mio nei nel nella non o per perché più posso può
        qual quale quali quando quello questo scrivi se si sono spiega su sul un una uno è""",
    "pt": """a ao aos as com como da das de descreva do dos e ela ele em escreva essa esse está eu
        explique mais me meu minha na nas no nos não o os ou para pela pelo podem pode por porque
        posso qual quais quando que quem se seu sua são tem um uma é à""",
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
