"""Questions of our own in several languages, each with titles of three points of its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Sample:
    """A question and what a plan of its answer may say.

    Args:
        language: two letters (ISO 639-1).
        question: as a client may ask it.
        titles: of points, in the question's language.
    """

    language: str
    question: str
    titles: tuple[str, str, str]


SAMPLES: Final = (
    Sample(
        "en",
        "How could a small town get more people to cycle?",
        ("Safe bike lanes", "Parking at the station", "Shared bikes"),
    ),
    Sample(
        "en",
        "What should I think about before I get a dog?",
        ("Time for walks", "Cost of food and vet", "Room at home"),
    ),
    Sample(
        "en",
        "What if there were no bees any more?",
        ("Fewer fruits and nuts", "Prices of food", "Other insects"),
    ),
    Sample(
        "zh",
        "小城镇怎样才能让更多的人骑自行车？",
        ("安全的自行车道", "车站的停车场", "公共自行车"),
    ),
    Sample("zh", "养狗之前应该考虑哪些问题？", ("遛狗的时间", "食物和兽医的费用", "家里的空间")),
    Sample("zh", "如果世界上没有蜜蜂会怎么样？", ("水果和坚果减少", "食品价格", "其他昆虫")),
    Sample(
        "de",
        "Wie kann eine kleine Stadt mehr Menschen zum Radfahren bewegen?",
        ("Sichere Radwege", "Abstellplätze am Bahnhof", "Leihräder"),
    ),
    Sample(
        "de",
        "Was sollte ich bedenken, bevor ich mir einen Hund anschaffe?",
        ("Zeit für Spaziergänge", "Kosten für Futter und Tierarzt", "Platz in der Wohnung"),
    ),
    Sample(
        "de",
        "Was wäre, wenn es keine Bienen mehr gäbe?",
        ("Weniger Obst und Nüsse", "Preise für Lebensmittel", "Andere Insekten"),
    ),
    Sample(
        "ar",
        "كيف يمكن لمدينة صغيرة أن تشجع المزيد من الناس على ركوب الدراجات؟",
        ("مسارات آمنة للدراجات", "مواقف عند المحطة", "دراجات مشتركة"),
    ),
    Sample(
        "ar",
        "ما الذي يجب أن أفكر فيه قبل اقتناء كلب؟",
        ("الوقت اللازم للمشي", "تكاليف الطعام والطبيب البيطري", "المساحة في المنزل"),
    ),
    Sample(
        "ar",
        "ماذا لو اختفى النحل من العالم؟",
        ("فواكه ومكسرات أقل", "أسعار الغذاء", "حشرات أخرى"),
    ),
    Sample(
        "fr",
        "Comment une petite ville peut-elle inciter plus d'habitants à faire du vélo ?",
        ("Des pistes cyclables sûres", "Un parking à la gare", "Des vélos en libre-service"),
    ),
    Sample(
        "fr",
        "À quoi faut-il penser avant d'adopter un chien ?",
        ("Le temps des promenades", "Le coût de la nourriture et du vétérinaire", "La place"),
    ),
    Sample(
        "fr",
        "Que se passerait-il s'il n'y avait plus d'abeilles ?",
        ("Moins de fruits et de noix", "Le prix des aliments", "Les autres insectes"),
    ),
    Sample(
        "es",
        "¿Cómo puede una ciudad pequeña lograr que más gente use la bicicleta?",
        ("Carriles bici seguros", "Aparcamiento en la estación", "Bicicletas compartidas"),
    ),
    Sample(
        "es",
        "¿En qué debo pensar antes de tener un perro?",
        ("Tiempo para los paseos", "Costes de comida y veterinario", "Espacio en casa"),
    ),
    Sample(
        "es",
        "¿Qué pasaría si ya no hubiera abejas?",
        ("Menos frutas y frutos secos", "Precios de los alimentos", "Otros insectos"),
    ),
)
