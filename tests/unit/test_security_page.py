"""What docs/security.md says of files: the tests that it names are there, the locks hold hashes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def threats() -> list[list[str]]:
    table = PAGE.partition("\n## Threats\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|")]
    return rows[2:]


def found(file: str) -> str:
    """The content of the one test file whose path ends so."""
    (path,) = [path for path in (ROOT / "tests").rglob(Path(file).name) if f"{path}".endswith(file)]
    return path.read_text()


@pytest.mark.parametrize("threat", threats(), ids=lambda row: row[0])
def test_each_threat_has_a_defence_and_a_test_that_is_there(threat: list[str]) -> None:
    _, defence, tests = threat
    assert defence
    named = re.findall(r"`((?:gateway/)?test_\w+\.py)::(test_\w+)`|`(\w+\.test\.js)`", tests)
    assert named
    for file, test, suite in named:
        assert suite or f"def {test}(" in found(file), f"{file}::{test}"
        assert not suite or found(suite)


def test_tests_named_elsewhere_on_the_page_are_there() -> None:
    named = set(re.findall(r"`(?:\w+\.py::)?(test_\w+)`", PAGE))
    ours = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert {name for name in named if f"def {name}(" not in ours} == set()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_package_is_locked_with_its_hashes(lock: Path) -> None:
    packages = re.split(r"^(?=[A-Za-z0-9])", lock.read_text(), flags=re.MULTILINE)[1:]
    assert packages
    for package in packages:
        assert re.match(r"[\w.-]+==\S+", package), package.splitlines()[0]
        assert "--hash=sha256:" in package, package.splitlines()[0]


def test_pip_is_told_to_refuse_what_has_another_hash() -> None:
    for name in ("Makefile", "Dockerfile"):
        text = (ROOT / name).read_text().replace("\\\n", " ")
        installs = re.findall(r".*\bpip\b.*\binstall\b.*", text)
        assert installs
        # The project itself comes from this folder, without what it needs.
        others = [line for line in installs if "--no-deps" not in line]
        assert all("--require-hashes" in line for line in others), others
