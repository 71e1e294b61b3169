"""The page's pure modules, tested in JavaScript (tests/page) by node's own runner.

The node is one on the PATH, or the one that the package playwright brings along.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1] / "page"
PAGE = Path(__file__).parents[2] / "services" / "gateway" / "page"


def node() -> str:
    found = shutil.which("node")
    if found:
        return found
    spec = find_spec("playwright")
    if spec is None or spec.origin is None:
        pytest.skip("there is no node, and playwright is not installed")
    return str(Path(spec.origin).parent / "driver" / "node")


@pytest.mark.parametrize("suite", sorted(path.name for path in TESTS.glob("*.test.js")))
def test_the_page_holds_its_promises(suite: str) -> None:
    command = [node(), "--test", "--test-reporter=tap", suite]
    done = subprocess.run(
        command, cwd=TESTS, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^# pass [1-9]", done.stdout, re.MULTILINE)


def test_the_page_is_complete_and_asks_nobody_else() -> None:
    """Every file that a file of the page names is there, and no other host is named."""
    for file in [*PAGE.glob("*.js"), *PAGE.glob("*.html"), *PAGE.glob("*.css")]:
        text = file.read_text()
        named = re.findall(r'(?:from |import |src=|href=)"(?!#|/)([^"]+)"', text)
        assert all((PAGE / name).exists() for name in named), (file.name, named)
        hosts = set(re.findall(r"https?://[\w.-]+", text)) - {"http://www.w3.org"}
        assert not hosts, (file.name, hosts)


def test_the_page_has_no_inline_script_or_style() -> None:
    text = (PAGE / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text)
    markup = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(")
    for file in PAGE.glob("*.js"):
        assert not markup.search(file.read_text()), file.name
