"""Takes the pictures of docs/gateway.md: `python -m tests.page_pictures docs/images`.

The gateway, the services and NATS are real; the engine follows a script, so that the pictures
are the same each time and the text is worth looking at.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.browser import ask, open_browser, open_page, page_script, until_state
from tests.gateway.site import whole_site

if TYPE_CHECKING:
    from playwright.async_api import Browser

QUESTION = "What should a small town weigh before it turns its main street into a pedestrian zone?"
PLAN = """\
graph
1. Where the traffic goes | hard medium
2. What shops gain and lose | hard medium
3. What it costs to build and keep | easy short
4. Who must still get in | easy short
5. Which kind of zone fits | hard medium needs 1,4
6. Whether the money works out | hard medium needs 2,3
7. How to decide with a trial | easy short needs 5,6
end"""
TEXTS = {
    1: (
        "A pedestrian zone moves cars; it does not remove them. Count where they go today: "
        "**through traffic** needs another road, **local traffic** another place to stop, and "
        "*deliveries* a window in the morning. A week of counts at four corners is enough to "
        "know which of the three is the largest."
    ),
    2: (
        "Shops fear the lost parking space more than it deserves:\n\n"
        "- people come more often and spend less each time,\n"
        "- **large goods** move to the edge of town,\n"
        "- rents follow within two years.\n\n"
        "That is good for owners and hard on tenants."
    ),
    3: (
        "Paving is the small cost. What surprises councils:\n\n"
        "1. drains and lighting, moved once the kerbs go,\n"
        "2. retractable bollards and their upkeep,\n"
        "3. street cleaning, which roughly doubles."
    ),
    4: (
        "Older people and those with prams gain the most inside the zone and lose the most at "
        "its edge. Keep a stop near every door, seats on the way, and a level surface: who walks "
        "slowly decides by the *longest* stretch."
    ),
    5: (
        "Traffic and access give the shape: closed to through traffic all day, open to deliveries "
        "until ten, with two short-stay bays at each end."
    ),
    6: (
        "The money works if the rents do. Agree beforehand on the footfall that pays for the "
        "upkeep, measure it, and say in public what happens if it is missed."
    ),
    7: (
        "Try it before you build it: one summer with planters and paint, counts before and after, "
        "and a vote in the autumn."
    ),
}
DESKTOP = {"viewport": {"width": 1280, "height": 900}}
DARK = {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


async def main(folder: Path) -> None:
    """Take all pictures."""
    script = page_script(TEXTS, PLAN, token_s=0.05)
    async with AsyncExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        site = await stack.enter_async_context(whole_site(logs, script))
        browser = await stack.enter_async_context(open_browser())
        link = await _live(browser, site.url, folder / "page-live.png")
        await _finished(browser, link, folder / "page-answered-dark.png", DARK)
        await _finished(browser, link, folder / "page-phone.png", PHONE)


async def _live(browser: Browser, url: str, file: Path) -> str:
    async with open_page(browser, url, **DESKTOP) as watched:
        page = watched.page
        await ask(page, QUESTION)
        await page.locator("#graph .node[data-key='1'][data-state=decoded]").wait_for()
        await page.screenshot(path=file)
        await until_state(page, "answered")
        return page.url


async def _finished(browser: Browser, link: str, file: Path, options: dict[str, Any]) -> None:
    async with open_page(browser, link, **options) as watched:
        await until_state(watched.page, "answered")
        await watched.page.mouse.move(0, 0)
        await watched.page.screenshot(path=file)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
