"""The live page, driven in a real browser against the real gateway, services and NATS."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from services.gateway.keys import entry, new_key
from tests.browser import (
    HOSTILELY,
    LINGER,
    STUMBLE,
    TEXTS,
    ask,
    open_browser,
    open_page,
    page_script,
    texts_of,
    until_state,
)
from tests.gateway.site import Site, start_gateway, whole_site

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUESTION = "Should our town close its main street to cars?"
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with whole_site(tmp_path_factory.mktemp("page"), page_script()) as site:
        yield site


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with open_browser() as browser:
        yield browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def finished(site: Site, browser: Browser) -> str:
    """The address of a request that was answered."""
    async with open_page(browser, site.url) as watched:
        await ask(watched.page, QUESTION)
        await until_state(watched.page, "answered")
        return watched.page.url


async def states(page: Page) -> list[str]:
    nodes = page.locator("#graph .node:not(.plan)")
    return [str(await node.get_attribute("data-state")) for node in await nodes.all()]


async def test_a_question_is_asked_watched_and_answered_in_order(
    site: Site, browser: Browser
) -> None:
    async with open_page(browser, site.url) as watched:
        page = watched.page
        await ask(page, QUESTION)
        await page.locator("#graph .node[data-state=decoding]").first.wait_for()
        await until_state(page, "answered")
        assert await texts_of(page, "#graph .node-name b") == ["Plan", "1", "2", "3", "4"]
        assert await states(page) == ["decoded"] * 4
        shown = "\n".join(await texts_of(page, ".part-text"))
        wanted = [word for text in TEXTS.values() for word in re.findall(r"\w+", text)]
        assert re.findall(r"\w+", shown) == wanted
        assert await page.locator(".part-text strong").inner_text() == "through traffic"
        assert await page.locator("#timeline .rows .row").count() == 5
        assert re.match(r"\d+\.\d×: .* instead of .*", await page.inner_text(".verdict"))
        assert await page.locator("#timeline .row.critical").count() >= 2
        assert await page.locator("#player").is_visible()
        await page.locator("#live", has_text="Answered in").wait_for(state="attached")
        assert await watched.problems() == []


async def test_a_node_is_found_and_opened_by_keyboard(finished: str, browser: Browser) -> None:
    async with open_page(browser, finished) as watched:
        page = watched.page
        await until_state(page, "answered")
        await page.locator("#graph .node[tabindex='0']").focus()
        await page.keyboard.press("End")
        assert await page.evaluate("document.activeElement.dataset.key") == "4"
        await page.keyboard.press("ArrowLeft")
        assert await page.evaluate("document.activeElement.dataset.key") in {"2", "3"}
        await page.keyboard.press("ArrowRight")
        await page.keyboard.press("Enter")
        panel = page.locator("#node-dialog")
        text = await panel.inner_text()
        assert "4. Whether the money works out" in text
        for part in (TEXTS[4], QUESTION, "[Write part 4:", "1. Where the traffic goes"):
            assert part in text, part
        for name in ("Pool", "Model", "Engine", "Attempt", "Queued", "First token"):
            assert await panel.locator("dt", has_text=name).count(), name
        await panel.get_by_role("button", name="2 What shops").click()
        assert await panel.locator("#node-title").inner_text() == "2. What shops gain and lose"
        await page.keyboard.press("Escape")
        assert await page.evaluate("document.activeElement.dataset.key") == "4"
        await page.click("#as-list")
        rows = await texts_of(page, "#list tbody tr")
        assert len(rows) == 4
        assert "decoded" in rows[0]
        assert await watched.problems() == []


async def test_a_cancel_reaches_the_engine_and_what_was_there_stays(
    site: Site, browser: Browser
) -> None:
    async with open_page(browser, site.url) as watched:
        page = watched.page
        await ask(page, f"Please {LINGER}: {QUESTION}")
        await page.locator("#graph .node[data-state=decoding]").nth(2).wait_for()
        waiting = page.locator("#graph .node[data-key='4']")
        assert await waiting.get_attribute("data-state") == "waiting"
        assert "waiting for 2 and 3" in str(await waiting.get_attribute("aria-label"))
        await page.locator(".part[data-phase=ahead]").first.wait_for()
        await page.click("#cancel-button")
        await until_state(page, "cancelled")
        async with asyncio.timeout(5):
            await asyncio.gather(*(call.over.wait() for call in site.engine.calls))
        assert await states(page) == ["cancelled"] * 4
        assert "cancelled" in await page.inner_text("#run-problem")
        assert await page.locator("#cancel-button").is_hidden()
        assert await watched.problems() == []


async def test_a_link_replays_a_finished_request(finished: str, browser: Browser) -> None:
    async with open_page(browser, finished) as watched:
        page = watched.page
        await until_state(page, "answered")
        whole = await texts_of(page, ".part-text")
        await page.locator("#scrub").focus()
        await page.keyboard.press("Home")
        await page.locator(".graph-canvas").wait_for(state="hidden")
        middle = page.locator("#graph .node[data-state=decoding]").first
        for _ in range(40):
            await page.keyboard.press("PageUp")
            if await middle.is_visible():
                break
        assert await middle.is_visible()
        assert await page.locator("#scrub").get_attribute("aria-valuetext")
        await page.get_by_role("button", name="Play").click()
        await until_state(page, "answered")
        await page.get_by_role("button", name="Play from the beginning").wait_for()
        assert await texts_of(page, ".part-text") == whole
        assert await watched.problems() == []


async def test_the_page_goes_on_at_another_gateway_where_it_was(
    site: Site, browser: Browser
) -> None:
    gateway, url = await site.another_gateway()
    async with open_page(browser, url) as watched:
        page = watched.page
        await ask(page, f"Please {LINGER} a little: {QUESTION}")
        await page.locator("#graph .node[data-state=decoding]").nth(2).wait_for()
        resumed: list[str | None] = []
        page.on("request", lambda request: resumed.append(request.headers.get("last-event-id")))
        gateway.kill()
        await page.locator("#link-state[data-state=lost]").wait_for()
        port = url.rsplit(":", 1)[1]
        await site.services.start("gateway", http_port=port)
        await page.locator("#link-state", has_text="live").wait_for()
        assert resumed
        assert all(resumed), "it asks for what it has not seen"
        await page.click("#cancel-button")
        await until_state(page, "cancelled")
        assert len(await states(page)) == 4
        assert [one for one in await watched.problems() if "ERR_" not in one] == []


async def test_what_a_model_writes_is_text_and_nothing_else(site: Site, browser: Browser) -> None:
    requests: list[str] = []
    async with open_page(browser, site.url) as watched:
        page = watched.page
        page.on("request", lambda request: requests.append(request.url))
        asked = f"<b>{HOSTILELY}</b> <img src=x onerror=alert(1)>"
        await ask(page, asked, "direct")
        await until_state(page, "answered")
        shown = await page.inner_text(".part-text")
        for part in ("<img src=x onerror=", "<script>", "<style>", "[go](javascript:"):
            assert part in shown, part
        assert await page.locator("main :is(script, style, img)").count() == 0
        links = await page.locator(".part-text a").evaluate_all("all => all.map(one => one.href)")
        assert links == ["https://evil.invalid/spy.png"]
        assert await page.inner_text("#run-title") == asked
        assert "pwned" not in await page.title()
        arabic = page.locator(".part-text p", has_text="مرحبا")
        assert await arabic.evaluate("one => getComputedStyle(one).direction") == "rtl"
        assert all(url.startswith(site.url) for url in requests)
        assert await watched.problems() == []


async def test_a_failed_attempt_is_seen_and_its_text_is_gone(site: Site, browser: Browser) -> None:
    async with open_page(browser, site.url) as watched:
        page = watched.page
        await ask(page, f"Please {STUMBLE}: {QUESTION}")
        await until_state(page, "answered")
        assert "This is void" not in await page.inner_text("#answer")
        assert await page.locator(".tick-failed").count() >= 1
        await page.locator("#graph .node[data-key='2']").click()
        attempts = await texts_of(page, "#node-dialog .attempts li")
        assert "engine_cut_off" in attempts[0]
        assert attempts[-1].endswith("decoded")
        assert await watched.problems() == []


async def test_a_key_is_asked_for_and_a_limit_is_said(
    site: Site, browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    key, keys = new_key(), tmp_path_factory.mktemp("keys") / "keys.toml"
    keys.write_text(entry("ann", key, {"max_in_flight": 1}))
    _, url = await start_gateway(site.services, keys_file=str(keys))
    async with open_page(browser, url) as watched:
        page = watched.page
        await page.fill("#key-input", "wrong")
        await page.keyboard.press("Enter")
        await page.locator("#recent-note:not(:empty)").wait_for()
        await page.fill("#question", f"Please {LINGER}: {QUESTION}")
        await page.click("#ask-button")
        await page.fill("#key-input", key)
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/#/r/*")
        await page.locator("#graph .node[data-state=decoding]").first.wait_for()
        first = page.url
        await page.click("#new-link")
        await page.locator("#recent-list a").wait_for()
        await page.fill("#question", "And another one?")
        await page.click("#ask-button")
        await page.locator("#ask-problem", has_text="too_many_requests").wait_for()
        assert "Try again" in await page.inner_text("#ask-problem")
        await page.goto(first)
        await page.click("#cancel-button")
        await until_state(page, "cancelled")
        assert await page.evaluate("Object.keys(localStorage).some(k => /key/.test(k))") is False
        assert await watched.problems() == []


async def test_what_is_not_known_is_said(site: Site, browser: Browser) -> None:
    async with open_page(browser, f"{site.url}/#/r/nobody-asked-this") as watched:
        await watched.page.locator("#run-problem", has_text="unknown_request").wait_for()
        assert await watched.problems() == []


@pytest.mark.parametrize(
    ("rules", "options"),
    [
        pytest.param(None, {"color_scheme": "light"}, id="light"),
        pytest.param(["color-contrast"], {"color_scheme": "dark"}, id="dark"),
        pytest.param(["target-size", "scrollable-region-focusable"], PHONE, id="phone"),
    ],
)
async def test_nothing_stands_in_the_way_of_anybody(
    finished: str, browser: Browser, rules: list[str] | None, options: dict[str, Any]
) -> None:
    """axe-core finds nothing (`rules`: only by these), and nothing is wider than the screen."""
    axe = pytest.importorskip("axe_playwright_python.async_playwright").Axe()
    only = {"resultTypes": ["violations"]} | ({"runOnly": rules} if rules else {})
    async with open_page(browser, finished, **options) as watched:
        page = watched.page
        await until_state(page, "answered")
        found: list[str] = []

        async def check(view: str) -> None:
            violations = (await axe.run(page, options=only)).response["violations"]
            targets = ((one, node["target"]) for one in violations for node in one["nodes"])
            found.extend(f"{view}: {one['id']} ({one['impact']}) at {at}" for one, at in targets)
            wide = await page.evaluate("document.scrollingElement.scrollWidth - innerWidth")
            assert wide <= 0, view

        await check("answer")
        await page.click("#as-list")
        await check("list")
        await page.locator(".part-id").first.click()
        await check("node")
        await page.keyboard.press("Escape")
        await page.click("#new-link")
        await page.locator("#recent-list a").first.wait_for()
        await page.locator(".options summary").click()
        await check("ask")
        assert found == []
        assert await watched.problems() == []


async def test_nothing_moves_for_those_who_asked_for_that(site: Site, browser: Browser) -> None:
    async with open_page(browser, site.url, reduced_motion="reduce") as watched:
        page = watched.page
        await ask(page, f"Please {LINGER}: {QUESTION}")
        await page.locator("#graph .node[data-state=decoding]").first.wait_for()
        assert await page.evaluate("document.getAnimations().length") == 0
        await page.click("#cancel-button")
        await until_state(page, "cancelled")
