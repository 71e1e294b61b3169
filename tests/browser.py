"""The live page in a real Chromium, and an engine whose script the question chooses."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.scripted_engine import Cut, Finish, Say, Script, Step, Wait, asks_for_plan
from tests.scripted_steps import Json

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

PLAN = """\
graph
1. Where the traffic goes | hard medium
2. What shops gain and lose | easy short
3. What it costs | easy short
4. Whether the money works out | hard medium needs 2,3
end"""
TEXTS = {
    1: "Count where cars go today: **through traffic** needs another road, deliveries a window.",
    2: "Footfall rises; what people carry gets smaller:\n\n- more visits\n- smaller bags",
    3: "Paving is the small cost. Drains, bollards and cleaning are what surprises.",
    4: "It pays from the third year on, if footfall rises by a fifth.",
}
HOSTILE = (
    "<img src=x onerror=\"document.title='pwned'\"> <script>document.title='pwned'</script>\n\n"
    "[go](javascript:document.title='pwned') ![spy](https://evil.invalid/spy.png)\n\n"
    "<style>body{display:none}</style>\n\nمرحبا بالعالم"
)
#: Words in the question that make the engine slow, hostile, or break off once.
LINGER, HOSTILELY, STUMBLE = "linger", "hostile", "stumble"

_COLLECT_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation",
  (event) => window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


def page_script(texts: dict[int, str] = TEXTS, plan: str = PLAN, token_s: float = 0.004) -> Script:
    """Return a script that plans, writes the nodes' texts, and heeds the words above."""
    stumbled = asyncio.Event()

    async def script(request: Json) -> AsyncIterator[Step]:
        asked = json.dumps(request["messages"])
        is_plan = asks_for_plan(request)
        text = plan if is_plan else _text_for(request, texts)
        if HOSTILELY in asked and not is_plan:
            text = HOSTILE
        is_second = "[Write part 2:" in request["messages"][-1]["content"]
        if STUMBLE in asked and is_second and not stumbled.is_set():
            stumbled.set()
            yield Say("This is void")
            yield Cut()
        for number, word in enumerate(text.split(" ")):
            yield Wait(1.0 if LINGER in asked and not is_plan else token_s)
            yield Say(word if number == 0 else f" {word}")
        yield Finish("stop")

    return script


def _text_for(request: Json, texts: dict[int, str]) -> str:
    last: str = request["messages"][-1]["content"]
    found = [text for node, text in texts.items() if f"[Write part {node}:" in last]
    return found[0] if found else texts[1]


@dataclass
class Watched:
    """A page, and all that went wrong in it."""

    page: Page
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("pageerror", lambda error: self.errors.append(f"threw {error}"))
        self.page.on("console", self._heard)

    def _heard(self, message: Any) -> None:
        # A refused or a lost call is logged by the browser itself; the page says it to people.
        if message.type in {"error", "warning"} and "Failed to load resource" not in message.text:
            self.errors.append(message.text)

    async def problems(self) -> list[str]:
        """Errors, and violations of the content security policy, so far."""
        violations: list[str] = await self.page.evaluate("window.violations")
        return self.errors + violations


def chromium() -> str:
    """Return the path of Chromium; skip the test where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("there is no Chromium (Debian: apt-get install chromium)")


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """Start a headless Chromium."""
    path = chromium()
    api = pytest.importorskip("playwright.async_api")
    async with api.async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        await browser.close()


@asynccontextmanager
async def open_page(browser: Browser, url: str, **options: Any) -> AsyncIterator[Watched]:
    """Open a page in a context of its own; `options` are those of the browser's context."""
    context = await browser.new_context(**options)
    context.set_default_timeout(15_000)
    await context.add_init_script(_COLLECT_VIOLATIONS)
    watched = Watched(await context.new_page())
    await watched.page.goto(url)
    yield watched
    await context.close()


async def ask(page: Page, question: str, mode: str = "sgd") -> str:
    """Ask as a person does, with the keyboard; return the request's id."""
    await page.fill("#question", question)
    await page.select_option("#mode", mode)
    await page.locator("#question").press("Control+Enter")
    await page.wait_for_url("**/#/r/*")
    return page.url.rsplit("/", 1)[1]


async def until_state(page: Page, state: str) -> None:
    """Return when the request is said to be in `state`."""
    await page.locator("#run-chips .chip.toned", has_text=state).wait_for()


async def texts_of(page: Page, selector: str) -> Sequence[str]:
    """The visible texts of all elements that match."""
    return await page.locator(selector).all_inner_texts()
