"""What a machine lacks is said at the end of a run, not passed over."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_skipped_test_is_said_aloud_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(
        "import pytest\n@pytest.mark.parametrize('n', (1, 2))\n"
        "def test_it(n): pytest.skip('there is no promtool')\n"
    )
    options = ("-p", "tests.conftest", "-p", "no:cacheprovider", "-c", "/dev/null", "-q")
    argv = (sys.executable, "-m", "pytest", *options, str(tmp_path))
    said = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    _, _, left_out = said.partition("NOT TESTED on this machine")
    assert "there is no promtool (tests: 2)" in left_out, said
