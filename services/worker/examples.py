"""The worked example that a node's writer is shown, in each language that is told apart.

Without one small models repeat the instruction or the plan; and they write in its language,
whatever the rules say (docs/adr/0028-language.md). All say the same, so that none asks for longer
texts than another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from services.runtime.languages import Language


@dataclass(frozen=True, slots=True)
class Example:
    """A question, the titles of its answer's three parts, and the texts of two of them.

    Args:
        question: as a client may ask it.
        titles: of the parts.
        first: text of the first part, two sentences.
        third: text of the third part, which is told the first: three sentences.
    """

    question: str
    titles: tuple[str, str, str]
    first: str
    third: str


EXAMPLES: Final[Mapping[Language, Example]] = {
    "en": Example(
        "How can I keep my houseplants healthy?",
        ("Water by the feel of the soil", "Right light for each plant", "A weekly round"),
        "Push a finger into the soil before you water. If the top two centimetres are dry, "
        "water until it runs out below; if they are damp, wait.",
        "Pick a fixed day and go from pot to pot. Besides the finger test, turn each plant a "
        "quarter so that it grows evenly, and look under the leaves for insects. Ten minutes a "
        "week are enough to notice trouble before it spreads.",
    ),
    "zh": Example(
        "怎样让室内植物保持健康？",
        ("凭手感浇水", "给每种植物合适的光线", "每周巡查一次"),
        "浇水之前先把手指插进土里。如果表面两厘米已经干了，就浇到水从盆底流出；如果还潮湿，就"
        "再等一等。",
        "选一个固定的日子，一盆一盆地看过去。除了用手指试土，还要把每盆植物转四分之一圈，让它"
        "长得匀称，并看看叶子背面有没有虫子。每周十分钟，就足以在问题蔓延之前发现它。",
    ),
    "de": Example(
        "Wie halte ich meine Zimmerpflanzen gesund?",
        ("Gießen nach Gefühl", "Das richtige Licht für jede Pflanze", "Ein Rundgang in der Woche"),
        "Stecken Sie einen Finger in die Erde, bevor Sie gießen. Sind die oberen zwei "
        "Zentimeter trocken, gießen Sie, bis unten Wasser herausläuft; sind sie feucht, warten "
        "Sie.",
        "Wählen Sie einen festen Tag und gehen Sie von Topf zu Topf. Drehen Sie nach der "
        "Fingerprobe jede Pflanze um ein Viertel, damit sie gleichmäßig wächst, und suchen Sie "
        "unter den Blättern nach Insekten. Zehn Minuten in der Woche genügen, um Schäden zu "
        "bemerken, bevor sie sich ausbreiten.",
    ),
    "ar": Example(
        "كيف أحافظ على صحة نباتاتي المنزلية؟",
        ("الري حسب ملمس التربة", "الضوء المناسب لكل نبتة", "جولة أسبوعية"),
        "أدخل إصبعك في التربة قبل أن تسقي. إذا كان أول سنتيمترين جافين فاسقِ حتى يخرج الماء من "
        "الأسفل، وإذا كانا رطبين فانتظر.",
        "اختر يومًا ثابتًا وتنقّل من أصيص إلى آخر. بعد اختبار الإصبع أدر كل نبتة ربع دورة كي "
        "تنمو بانتظام، وابحث عن الحشرات تحت الأوراق. عشر دقائق في الأسبوع تكفي لملاحظة المشكلة "
        "قبل أن تنتشر.",
    ),
    "fr": Example(
        "Comment garder mes plantes d'intérieur en bonne santé ?",
        ("Arroser au toucher", "La bonne lumière pour chaque plante", "Une tournée par semaine"),
        "Enfoncez un doigt dans la terre avant d'arroser. Si les deux premiers centimètres sont "
        "secs, arrosez jusqu'à ce que l'eau sorte par le bas ; s'ils sont humides, attendez.",
        "Choisissez un jour fixe et passez de pot en pot. Après le test du doigt, tournez "
        "chaque plante d'un quart de tour pour qu'elle pousse droit, et cherchez les insectes "
        "sous les feuilles. Dix minutes par semaine suffisent pour voir un problème avant qu'il "
        "ne s'étende.",
    ),
    "es": Example(
        "¿Cómo puedo mantener sanas mis plantas de interior?",
        ("Regar según el tacto", "La luz adecuada para cada planta", "Una ronda semanal"),
        "Hunda un dedo en la tierra antes de regar. Si los dos primeros centímetros están "
        "secos, riegue hasta que salga agua por abajo; si están húmedos, espere.",
        "Elija un día fijo y vaya de maceta en maceta. Después de la prueba del dedo, gire cada "
        "planta un cuarto de vuelta para que crezca pareja, y busque insectos debajo de las "
        "hojas. Diez minutos por semana bastan para notar un problema antes de que se extienda.",
    ),
    "it": Example(
        "Come posso mantenere sane le mie piante da interno?",
        ("Annaffiare a tatto", "La luce giusta per ogni pianta", "Un giro alla settimana"),
        "Infili un dito nella terra prima di annaffiare. Se i primi due centimetri sono "
        "asciutti, annaffi finché l'acqua esce dal fondo; se sono umidi, aspetti.",
        "Scelga un giorno fisso e vada di vaso in vaso. Dopo la prova del dito giri ogni pianta "
        "di un quarto, perché cresca in modo uniforme, e cerchi gli insetti sotto le foglie. "
        "Dieci minuti alla settimana bastano per notare un problema prima che si diffonda.",
    ),
    "pt": Example(
        "Como posso manter saudáveis as minhas plantas de interior?",
        ("Regar pelo toque", "A luz certa para cada planta", "Uma ronda por semana"),
        "Enfie um dedo na terra antes de regar. Se os dois primeiros centímetros estiverem "
        "secos, regue até a água sair por baixo; se estiverem úmidos, espere.",
        "Escolha um dia fixo e vá de vaso em vaso. Depois do teste do dedo, gire cada planta um "
        "quarto de volta para que cresça por igual, e procure insetos debaixo das folhas. Dez "
        "minutos por semana bastam para notar um problema antes que ele se espalhe.",
    ),
}
