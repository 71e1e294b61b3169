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
#: What a text is taken for that shows no language, or one without an example.
DEFAULT: Final[Language] = "en"

#: Common words of two letters and more, those of requests above all, as these are short. Some are
#: of several languages. English has also the foreign words that stand in names and loans (de, la):
#: such a word alone makes no text foreign.
_WORDS: Final[Mapping[Language, str]] = {
    "en": """about advantages after al also am an and another any are as at be because been before
        being benefits best better between build but by can com come comment compare con could da
        dame das de del der des describe di did die difference differences disadvantages discuss do
        does draft du during each el en english era evaluate every examples explain fare few find
        for from get give good great ha had has hat have hay help her here him his history how
        ideas if in into io is it its just keep la las le learn les let like los ma make makes man
        many me mean meaning means might mine mit more most much must my need never new no non not
        of often old on only or our par people per please plus pour proofread pros recipe recipes
        review rewrite same shall she should show some son strategies strategy such suggest
        summarise summarize summary tell than that the their them then theories theory there these
        they thing things this those through to today too translate trip um us used using very want
        war was way ways we were what when where which while who why will with without work works
        would write you your""",
    "de": """als am an auch auf aus bei beispiele beschreibe das dem den der des die drei durch ein
        eine einem einen einer er erkläre es für gib gibt haben hat her hätte ich ihre im in ist
        kann können könnte man mehr mein meine mich mir mit nach nachteile nenne nicht nie oder
        schreibe sein sich sie sind soll sollte um und unser unsere unserer unterschied
        unterschiede vergleiche von vor vorteile wann war warum was welche wenn wer werden wie
        wieder will wird wo wäre zu zum zur über""",
    "fr": """an as au aux avantages avec avoir but ce cela ces comment compare dans de des
        différence différences doit doivent donne du décris elle en entre est et exemples explique
        faire faut il ils inconvénients jamais je la le les leur ma mes moi mon ne nos notre nous
        on ont or ou où par pas peut peuvent plus pour pourquoi qu que quel quelle quelles quels
        qui quoi sa se ses si son sont sur un une votre vous écris était être""",
    "es": """al como compara con cuando cuál cuáles cómo dame de debería debo del describe
        desventajas diferencia diferencias donde dónde ejemplos el en entre era es escribe esta
        está están explica fue gente hace hacer has hay hubiera ideas la las lo los me mejor mi mis
        más no nuestra nuestro nunca para pero por porque pros puede puedo que quién qué se ser si
        sin sobre son su sus tiene un una ventajas ya""",
    "it": """al alla che chi come con confronta cosa cui da dal dammi degli dei del della delle
        descrivi di differenza differenze dovrebbe dovrei era esempi essere fare fosse gli ha hanno
        ho il in io la le lo loro ma mai me meglio mi mia mio nei nel nella non nostra nostro per
        perché più posso può qual quale quali quando quello questo scrivi se si sono spiega su sul
        svantaggi un una uno vantaggi""",
    "pt": """ao aos as com como compare da das de descreva desvantagens deve diferença diferenças
        do dos ela ele em entre era escreva essa esse está eu exemplos explique fazer foi mais me
        melhor meu minha na nas no nos nossa nosso nunca não os ou para pela pelo pode podem por
        porque posso quais qual quando que quem se ser seu sua são tem tivesse um uma umas uns
        vantagens""",
}

_LANGUAGES: Final[Mapping[str, tuple[Language, ...]]] = {
    word: tuple(language for language in _WORDS if word in _WORDS[language].split())
    for words in _WORDS.values()
    for word in words.split()
}
_WORD: Final = re.compile(r"\w+")
#: What English hangs on a word: the s of Python's is no word of French.
_CONTRACTED: Final = re.compile(r"['’](?:s|t|d|m|re|ve|ll)\b", re.IGNORECASE)
#: Letters of Persian, Urdu and others that Arabic is written without.
_NOT_ARABIC: Final = frozenset("پچژگکیٹڈڑںھہے")
#: Scripts that Chinese is written without: what has some of their letters is Japanese or Korean.
_NOT_CHINESE: Final = frozenset(("HIRAGANA", "KATAKANA", "HANGUL"))
#: So many common words say more than a name or a loan word does; fewer say nothing.
_MIN_WORDS: Final = 2
#: Share of letters above which a script other than Latin is the text's.
_MIN_SHARE: Final = 0.3
#: What is looked at of a text: enough to tell, and no more of one that holds a whole document.
_LOOKED_AT_CHARS: Final = 2000


def language_of(text: str) -> Language | Literal["other"] | None:
    """Return the language of `text`; None where it shows none, `other` where its script is another.

    English wins each doubt: one of its words that is of no other language here makes a text
    English, whatever else is in it. Then letters tell; where these are Latin, common words, of
    which one language must have more than all others, two at least and one that English has not.
    Names and code are Latin in any language: fewer letters of another script tell.
    """
    return _language_of(text[:_LOOKED_AT_CHARS])


def language_asked(question: str, context: Sequence[Turn]) -> Language:
    """Return the language whose example a question is answered by.

    Where the question shows none, that of what was asked before it. It follows from the request
    alone, so that all its nodes are shown the same example.

    Args:
        question: as the client wrote it.
        context: what was said before, oldest first.
    """
    asked = [turn.content for turn in reversed(context) if turn.role == "user"]
    found = (language_of(text) for text in (question, *asked))
    language = next((language for language in found if language), DEFAULT)
    return DEFAULT if language == "other" else language


@lru_cache(maxsize=256)
def _language_of(text: str) -> Language | Literal["other"] | None:
    words = _words(text)
    if any(_LANGUAGES.get(word) == ("en",) for word in words):
        return "en"
    letters = Counter(_script(char) for char in text if char.isalpha())
    others = Counter({script: letters[script] for script in letters if script != "LATIN"})
    if others.total() > _MIN_SHARE * letters.total():
        return _by_script(others, text)
    return _by_words(words) or ("en" if _CONTRACTED.search(text) else None)


@lru_cache(maxsize=4096)
def _script(char: str) -> str:
    """Return the first word of a character's name: LATIN, ARABIC, CJK, HIRAGANA and others."""
    return unicodedata.name(char, "").partition(" ")[0]


def _by_script(letters: Counter[str], text: str) -> Literal["zh", "ar", "other"]:
    """Return the language by the script that most of `letters` are of."""
    script = max(letters, key=letters.__getitem__)
    if script == "CJK" and not _NOT_CHINESE & letters.keys():
        return "zh"
    return "ar" if script == "ARABIC" and not _NOT_ARABIC & set(text) else "other"


def _words(text: str) -> frozenset[str]:
    """Return the words of `text` that may be common ones.

    With a capital letter they are names (Los Angeles), but for the first; letters alone, and those
    beside digits, are none.
    """
    found = [word for word in _WORD.findall(_CONTRACTED.sub("", text)) if word.isalpha()]
    words = (word for place, word in enumerate(found) if place == 0 or not word[0].isupper())
    return frozenset(word.casefold() for word in words if len(word) > 1)


def _by_words(words: frozenset[str]) -> Language | None:
    found = Counter(language for word in words for language in _LANGUAGES.get(word, ()))
    english = found.pop("en", 0)
    (first, most), (_, next_most), *_ = (*found.most_common(2), (DEFAULT, 0), (DEFAULT, 0))
    if most >= _MIN_WORDS and most > next_most and first in _foreign(words):
        return first
    return "en" if english >= _MIN_WORDS else None


def _foreign(words: frozenset[str]) -> frozenset[Language]:
    """Return the languages of those words that English has not."""
    known = (_LANGUAGES.get(word, ()) for word in words)
    return frozenset(one for languages in known if "en" not in languages for one in languages)
