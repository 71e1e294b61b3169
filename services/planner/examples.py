"""The three worked plans of the planning prompt, in each language that is told apart.

A small model writes its titles in the language of these, or copies them whole where the
question's is another (docs/adr/0028-language.md). Their shape is the same in all, because it is
imitated. Among the English ones is one in German: they stand for all other languages too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from services.runtime.languages import Language


@dataclass(frozen=True, slots=True)
class Plan:
    """A question and the titles of its plan, whose marks are those of its place in the prompt.

    Args:
        question: as a client may ask it.
        titles: of its points, in order.
    """

    question: str
    titles: tuple[str, ...]


_GERMAN: Final = Plan(
    "Soll unsere Firma das Büro aufgeben?",
    (
        "Folgen für die Zusammenarbeit",
        "Recht und Datenschutz",
        "Kosten von Miete und Technik",
        "Wünsche der Mitarbeiter",
        "Empfehlung",
    ),
)

#: Whether to give up the office, how to keep plants, what if there were no Moon.
PLANS: Final[Mapping[Language, tuple[Plan, Plan, Plan]]] = {
    "en": (
        _GERMAN,
        Plan(
            "How can I keep my houseplants healthy?",
            (
                "Pests and diseases",
                "Water by the feel of the soil",
                "Right light for each plant",
                "Repotting and feeding",
            ),
        ),
        Plan(
            "What if the Moon had never formed?",
            (
                "Unsteady tilt of the axis",
                "Weaker tides and coasts",
                "Darker nights for animals",
                "Calendars and myths",
                "Odds for life on Earth",
            ),
        ),
    ),
    "zh": (
        Plan(
            "我们公司应该放弃办公室吗?",
            ("对合作的影响", "法律与数据保护", "租金和技术的费用", "员工的愿望", "建议"),
        ),
        Plan(
            "怎样让室内植物保持健康?",
            ("病虫害", "凭手感浇水", "每种植物合适的光线", "换盆和施肥"),
        ),
        Plan(
            "如果月球从未形成会怎样?",
            ("地轴倾斜不稳", "潮汐减弱与海岸", "动物的黑夜", "历法与神话", "地球上有生命的可能"),
        ),
    ),
    "de": (
        _GERMAN,
        Plan(
            "Wie halte ich meine Zimmerpflanzen gesund?",
            (
                "Schädlinge und Krankheiten",
                "Gießen nach Gefühl",
                "Das richtige Licht für jede Pflanze",
                "Umtopfen und Düngen",
            ),
        ),
        Plan(
            "Was wäre, wenn es den Mond nie gegeben hätte?",
            (
                "Schwankende Neigung der Achse",
                "Schwächere Gezeiten und Küsten",
                "Dunklere Nächte für Tiere",
                "Kalender und Mythen",
                "Aussichten für Leben auf der Erde",
            ),
        ),
    ),
    "ar": (
        Plan(
            "هل ينبغي لشركتنا أن تتخلى عن المكتب؟",
            (
                "الآثار على التعاون",
                "القانون وحماية البيانات",
                "تكاليف الإيجار والتقنية",
                "رغبات الموظفين",
                "التوصية",
            ),
        ),
        Plan(
            "كيف أحافظ على صحة نباتاتي المنزلية؟",
            (
                "الآفات والأمراض",
                "الري حسب ملمس التربة",
                "الضوء المناسب لكل نبتة",
                "تبديل الأصص والتسميد",
            ),
        ),
        Plan(
            "ماذا لو لم يتشكل القمر قط؟",
            (
                "ميل غير مستقر للمحور",
                "مد أضعف وسواحل أخرى",
                "ليال أشد ظلمة للحيوانات",
                "التقاويم والأساطير",
                "فرص الحياة على الأرض",
            ),
        ),
    ),
    "fr": (
        Plan(
            "Notre entreprise doit-elle renoncer au bureau ?",
            (
                "Effets sur le travail en commun",
                "Droit et protection des données",
                "Coûts du loyer et de la technique",
                "Souhaits des employés",
                "Recommandation",
            ),
        ),
        Plan(
            "Comment garder mes plantes d'intérieur en bonne santé ?",
            (
                "Parasites et maladies",
                "Arroser au toucher de la terre",
                "La bonne lumière pour chaque plante",
                "Rempotage et engrais",
            ),
        ),
        Plan(
            "Et si la Lune ne s'était jamais formée ?",
            (
                "Inclinaison instable de l'axe",
                "Marées plus faibles et côtes",
                "Nuits plus sombres pour les animaux",
                "Calendriers et mythes",
                "Chances de vie sur Terre",
            ),
        ),
    ),
    "es": (
        Plan(
            "¿Debería nuestra empresa dejar la oficina?",
            (
                "Efectos en el trabajo en equipo",
                "Derecho y protección de datos",
                "Costes de alquiler y técnica",
                "Deseos de los empleados",
                "Recomendación",
            ),
        ),
        Plan(
            "¿Cómo puedo mantener sanas mis plantas de interior?",
            (
                "Plagas y enfermedades",
                "Regar según el tacto de la tierra",
                "La luz adecuada para cada planta",
                "Trasplante y abono",
            ),
        ),
        Plan(
            "¿Y si la Luna nunca se hubiera formado?",
            (
                "Inclinación inestable del eje",
                "Mareas más débiles y costas",
                "Noches más oscuras para los animales",
                "Calendarios y mitos",
                "Posibilidades de vida en la Tierra",
            ),
        ),
    ),
    "it": (
        Plan(
            "La nostra azienda dovrebbe lasciare l'ufficio?",
            (
                "Effetti sul lavoro in comune",
                "Diritto e protezione dei dati",
                "Costi di affitto e tecnica",
                "Desideri dei dipendenti",
                "Raccomandazione",
            ),
        ),
        Plan(
            "Come posso mantenere sane le mie piante da interno?",
            (
                "Parassiti e malattie",
                "Annaffiare al tatto della terra",
                "La luce giusta per ogni pianta",
                "Rinvaso e concime",
            ),
        ),
        Plan(
            "E se la Luna non si fosse mai formata?",
            (
                "Inclinazione instabile dell'asse",
                "Maree più deboli e coste",
                "Notti più buie per gli animali",
                "Calendari e miti",
                "Possibilità di vita sulla Terra",
            ),
        ),
    ),
    "pt": (
        Plan(
            "A nossa empresa deve deixar o escritório?",
            (
                "Efeitos no trabalho em equipe",
                "Direito e proteção de dados",
                "Custos de aluguel e técnica",
                "Desejos dos funcionários",
                "Recomendação",
            ),
        ),
        Plan(
            "Como posso manter saudáveis as minhas plantas de interior?",
            (
                "Pragas e doenças",
                "Regar pelo toque da terra",
                "A luz certa para cada planta",
                "Troca de vaso e adubo",
            ),
        ),
        Plan(
            "E se a Lua nunca se tivesse formado?",
            (
                "Inclinação instável do eixo",
                "Marés mais fracas e costas",
                "Noites mais escuras para os animais",
                "Calendários e mitos",
                "Chances de vida na Terra",
            ),
        ),
    ),
}
