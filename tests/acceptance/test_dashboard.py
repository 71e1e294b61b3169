"""Every panel of the dashboard has data from a real Prometheus that scrapes the services."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from bench.dashboard import ENV, LARGE, SMALL, draw, load, panels, read
from bench.prometheus import prometheus
from bench.simulated_stack import simulated_stack

#: What need not happen within a short load: nodes that die, and refusals.
RARE = {
    "Dead letters in an hour",
    "Direct answers instead of one that died, a second",
    "Requests refused a second",
}


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_every_panel_has_data_under_load(tmp_path: Path) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("there is no prometheus (Debian: apt-get install prometheus)")
    faster = ("--time-scale", "0.3", "--median-tokens", "60")
    failing = ("--fault-share", "0.5")  # so that attempts fail however few there are
    async with (
        simulated_stack(
            tmp_path / "stack", env=ENV, large=(*LARGE, *faster), small=(*SMALL, *failing, *faster)
        ) as state,
        prometheus(tmp_path / "prometheus", state) as asked,
    ):
        assert state.gateway_url
        start_at = time.time()
        await load(state.gateway_url, seconds=30, rate=1.5)
        shown = [(panel, await read(asked, panel, start_at)) for panel in panels()]
    empty = {panel.title for panel, lines in shown if not lines and not panel.needs_a_cluster}
    assert empty <= RARE
    (cached,) = [lines for panel, lines in shown if "prefix cache" in panel.title]
    assert any(value > 0 for _, series in cached for _, value in series.points)
    in_a_cluster = {panel.title for panel, _ in shown if panel.needs_a_cluster}
    assert in_a_cluster == {"Lag of the work queues (what KEDA sees)", "Replicas", "Event log"}
    draw(shown, tmp_path / "dashboard.png")
    assert (tmp_path / "dashboard.png").stat().st_size > 10_000
