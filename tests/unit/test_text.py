"""A node's text: no echoed heading, whole sentences, closed fences; the same in any chunking."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proto.messages import FinishReason, NodeSpec
from services.worker.text import TextFilter

NODE = NodeSpec(id=2, summary="Watch the soil")
SKELETON = ("1. Staffing | easy short", "2. Watch the soil | easy", "3. Light | hard needs 1")


def cleaned(text: str, reason: FinishReason = "stop", node: NodeSpec | None = NODE) -> str:
    return clean([text], reason, node)[1]


def clean(
    pieces: list[str], reason: FinishReason = "stop", node: NodeSpec | None = NODE
) -> tuple[str, str]:
    """Return what was shown and the final text."""
    text = TextFilter(node, SKELETON)
    shown = "".join([text.feed(piece) for piece in pieces])
    return shown, text.finish(reason)


_HEADS = [
    "\n3. Light",
    "\n1. Staffing | easy",
    "Watch the soil",
    "watch",
    "2. ",
    "Part 2: ",
    "**",
    "##",
    ":",
    "|",
    " easy",
]
_BODIES = ["Water it. ", "你好。", "1. ", "- item\n", "3.5", "!", "ß", "İ", " ", "\n", "\r\n"]
_FENCES = ["```", "```py\n", "\n```\n", "~~~"]
_PARTS = st.sampled_from([*_HEADS, *_BODIES, *_FENCES])
_TEXTS = st.lists(_PARTS | st.text(max_size=3), max_size=25).map("".join)
_PLACES = st.lists(st.integers(0, 500), max_size=10)


@given(_TEXTS, _PLACES, st.sampled_from(["stop", "length"]))
@example("3.5\r\nWatch the soil", [], "length")
def test_one_of_shown_and_final_is_a_prefix_of_the_other_in_any_chunking(
    text: str, places: list[int], reason: FinishReason
) -> None:
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    shown, final = clean([text[a:b] for a, b in itertools.pairwise(edges)], reason)
    assert (shown, final) == clean([text], reason)
    assert final.startswith(shown) or shown.startswith(final)
    assert bool(final) == bool(text.strip())
    assert final == final.strip()
    assert shown == shown.strip()


@given(_TEXTS)
def test_without_a_node_only_outer_whitespace_goes(text: str) -> None:
    shown, final = clean([text], node=None)
    assert shown in ("", text.strip()) or final == text.strip()
    assert final.startswith(text.strip())


@pytest.mark.parametrize("before", ["\n\n    ", "\t", "     ", "Watch the soil:\n\n    "])
@pytest.mark.parametrize("text", ["It dries in summer.", "- Water\n- Light", "```python\nx\n```"])
def test_space_before_a_text_makes_no_code_of_it(before: str, text: str) -> None:
    for pieces in ([before + text], list(before + text)):
        assert clean(pieces) == (text, text)


@pytest.mark.parametrize(
    "heading",
    [
        "Watch the soil:\n",
        "watch the soil\n\n",
        "2. Watch the soil: ",
        "2) Watch the soil\n",
        "**Watch the soil**\n\n",
        "**Watch the soil:** ",
        "**2. Watch the soil**: ",
        "## Watch the soil\n",
        "### Part 2: Watch the soil\n",
        "2. Watch the soil | hard | needs 1\n",
    ],
)
def test_an_echoed_heading_goes(heading: str) -> None:
    for pieces in ([f"\n {heading}It dries."], list(f"{heading}It dries.")):
        assert clean(pieces) == ("It dries.", "It dries.")


@pytest.mark.parametrize(
    "text",
    [
        "Watch the soil and the leaves.",
        "Watch the soil. It dries.",
        "**Watch the soil** every day.",
        "3. Watch the soil: daily.",
        "Watch the leaves:\nThey fall.",
        "2. Fertilise in spring.",
        "## Another heading\nText.",
    ],
)
def test_what_is_not_the_nodes_own_heading_stays(text: str) -> None:
    assert cleaned(text) == text


@pytest.mark.parametrize("text", ["Watch the soil", "2. Watch the soil:", "**Watch the soil**"])
def test_a_text_that_is_only_its_heading_is_kept(text: str) -> None:
    assert cleaned(text) == text


@pytest.mark.parametrize(
    "heading",
    [
        "3. Light | hard short",
        "3. Light",
        "## 3. Light",
        "**Light:**",
        "1) Staffing:",
        "__3. Light__ | hard, needs 1,2",
        "Part 9: Light (3 sentences)",
        "**Part 3: Light**: more",
    ],
)
def test_a_text_ends_where_the_model_goes_on_with_the_plan(heading: str) -> None:
    for rest in ("", "\nLeaves turn.", "\n4. More | easy"):
        for pieces in ([f"It dries.\n{heading}{rest}"], list(f"It dries.\n\n{heading}{rest}")):
            assert clean(pieces, "length") == ("It dries.", "It dries.")


@pytest.mark.parametrize(
    "text",
    [
        "In short.\nLight: not much.",
        "In short.\n3. Light is not much.",
        "In short.\n4. Light is not much.\nMore.",
        "In short.\n- Light: not much.\n- Staffing: none.",
        "Light\nis the matter.",
        "In short.\n3. Lig",
        "In short.\n3. Light: not much.\n1. Staffing: none.",
        "In short.\n**Light:** not much.\n\n**Staffing:** none.",
        "In short.\n* **Light**: not much.\n* **Staffing**: none.",
        "In short.\n* **Light**\n* **Staffing**",
        "In short.\n**Light** | **Staffing**\n--- | ---\nlow | none",
    ],
)
def test_a_part_may_name_the_others(text: str) -> None:
    assert clean(list(text))[1] == cleaned(text) == text


_CODE = st.sampled_from(
    ["# 3. Light\n", "## Light\n", "3. Light\n", "ls  # all\n", "```py\n", "\n"]
)


@given(st.lists(_CODE, max_size=5), st.sampled_from(["```", "~~~", "  ```sh", "````"]))
def test_no_line_of_a_code_block_is_a_heading(code: list[str], fence: str) -> None:
    block = f"{fence}\n{''.join(code)}{fence.strip().removesuffix('sh')}\n"
    text = f"Run:\n{block}Then it is light.\n3. Light\nMore."
    for pieces in (list(text), [text]):
        assert clean(pieces)[1] == text.removesuffix("\n3. Light\nMore.")


_MARKS = st.sampled_from(["3. {}", "**{}**", "## {}", "3. **{}**", "* **{}**", "Part 3: {}"])
_NAMED = st.tuples(_MARKS, st.sampled_from(["", ":", ": it matters.", " | hard", "\n===="]))


@given(st.lists(_NAMED, min_size=1, max_size=4), st.sampled_from([1, 4, 1000]))
def test_a_part_that_builds_on_others_may_give_each_a_heading_of_its_own(
    named: list[tuple[str, str]], size: int
) -> None:
    weighs = NodeSpec(id=2, summary="Watch the soil", needs=(1, 3))
    lines = [mark.format("Light") + rest + "\nSo much." for mark, rest in named]
    text = "\n".join(["Weighing both:", *lines])
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert clean(pieces, node=weighs)[1] == text


@pytest.mark.parametrize(
    "text",
    [
        "{} | Price\n--- | ---\nRent | 10\nPower | 5",
        "{} | easygoing\n--- | ---\nno | yes",
        "{}\n- one\n- two",
        "{}\n-- is said twice",
    ],
)
def test_what_begins_with_the_own_title_is_no_heading_if_it_is_a_table(text: str) -> None:
    text = text.format(NODE.summary)
    kept = text if "|" in text else text.partition("\n")[2]
    assert clean(list(text))[1] == cleaned(text) == kept


@pytest.mark.parametrize("line", ["=", "====", "---", "  ----  "])
def test_an_underlined_heading_goes_with_its_line(line: str) -> None:
    for text in (f"Watch the soil\n{line}\nIt dries.", f"Watch the soil:\n{line}\n\nIt dries."):
        assert clean(list(text)) == clean([text]) == ("It dries.", "It dries.")


@pytest.mark.parametrize("before", ["", "Watch the soil", "It dries.\n", "It dries.\n3. Light"])
def test_spaces_by_the_thousand_cost_no_more_than_other_text(before: str) -> None:
    """Read anew with each chunk and in each way they can be parted, they took the worker's time."""
    text = f"{before}{' ' * 8000}x\n"
    assert clean([text[at : at + 4] for at in range(0, len(text), 4)])[1] == text.strip()


@pytest.mark.parametrize(
    ("number", "summary", "text", "final"),
    [
        (1, "历史背景", "**1. 历史背景**\uff1a很久以前。\n2. 结论 | easy", "很久以前。"),
        (2, "结论", "结论\uff1a好。\n\n## 历史背景\n很久。", "好。"),
        (1, "التكلفة والوقت", "1. التكلفة والوقت: قليلة.\n2. الخلاصة", "قليلة."),
        (1, "Größe und Lage", "größe und LAGE:\nSie zählt.\n**2. Schluß**", "Sie zählt."),
    ],
)
def test_headings_are_known_in_any_script(number: int, summary: str, text: str, final: str) -> None:
    skeleton = (
        "1. 历史背景 | easy",
        "2. 结论 | hard needs 1",
        "2. الخلاصة | hard",
        "2. Schluß | hard",
    )
    others = tuple(line for line in skeleton if not line.startswith(f"{number}."))
    for pieces in ([text], list(text)):
        node = TextFilter(NodeSpec(id=number, summary=summary), others)
        shown = "".join([node.feed(piece) for piece in pieces])
        assert (shown, node.finish("stop")) == (final, final)


def test_it_says_when_the_rest_need_not_be_waited_for() -> None:
    text = TextFilter(NODE, SKELETON)
    heard = [text.feed(piece) and text.is_over for piece in ("It dries.", "\n3. ", "Light | hard")]
    assert not any(heard)
    text.feed("\n")
    assert text.is_over
    assert (text.feed("Leaves turn."), text.finish("stop")) == ("", "It dries.")


def test_the_first_words_are_shown_as_soon_as_they_are_no_heading() -> None:
    text = TextFilter(NODE)
    assert text.feed("W") == ""
    assert text.feed("at") == ""
    assert text.feed("er  ") == "Water"
    assert text.feed("it") == "  it"


@pytest.mark.parametrize(
    ("text", "final"),
    [
        ("One. Two! Thr", "One. Two!"),
        ("One? He said “two.” Then thr", "One? He said “two.”"),
        ("Costs 3.5 million. Then 4.", "Costs 3.5 million. Then 4."),
        ("Costs 3.5 million. Then 4.2 mil", "Costs 3.5 million."),
        ("第一句。第二句！第三", "第一句。第二句！"),
        ("ما هذا؟ هذا كت", "ما هذا؟"),
        ("Well… Then", "Well…"),
        ("It helps. Take fruit, e.g. app", "It helps."),
        ("It helps. Take fruit, e.g.", "It helps."),
        ("Das hilft. Obst, z. B. Äpf", "Das hilft."),
        ("It grew. Acme Inc. was sold to", "It grew."),
        ("یہ پہلا جملہ ہے۔ یہ دوسرا جم", "یہ پہلا جملہ ہے۔"),
        ("रामः वनं गच्छति॥ सः अत्", "रामः वनं गच्छति॥"),
        ("第一句｡第二", "第一句｡"),
        ("Do:\n1. Look.\n2. ", "Do:\n1. Look."),
        ("Do:\n- look\n- see\n- hea", "Do:\n- look\n- see"),
        ("Do it.\n\n1. **", "Do it."),
        (
            "See:\n| a | b |\n|---|---|\n| 1. | 2 |\n| 3. | fo",
            "See:\n| a | b |\n|---|---|\n| 1. | 2 |",
        ),
        ("See this.\n\n| a. | b |\n|---|---|\n| 1. | fo", "See this."),
        ("See this.\n\n| a. | b", "See this."),
        ("```\n| a. |\n| b |\n| c |\n```\nSee th", "```\n| a. |\n| b |\n| c |\n```"),
        ("No sentence ends here", "No sentence ends here"),
        ("Run.\n```py\nprint('a. b')\n```\nIt pri", "Run.\n```py\nprint('a. b')\n```"),
    ],
)
def test_a_text_cut_off_by_its_length_ends_with_a_whole_sentence(text: str, final: str) -> None:
    assert cleaned(text, "length") == final
    assert cleaned(text, "stop") == text.strip()


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_an_open_code_fence_is_closed(reason: FinishReason) -> None:
    assert cleaned("Run. So:\n```py\na = 1.\nb", reason) == "Run. So:\n```py\na = 1.\nb\n```"
    assert cleaned("~~~~\nx", reason) == "~~~~\nx\n~~~~"
    assert cleaned("```\na\n```\nDone.", reason) == "```\na\n```\nDone."


@pytest.mark.parametrize(
    "text", ["```print(1)``` prints one.", "So:\n```x = `a` ``` is code.\nYes."]
)
def test_code_within_a_line_opens_no_block(text: str) -> None:
    assert cleaned(text) == cleaned(text, "length") == text
