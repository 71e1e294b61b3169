"""Whatever dies, each accepted request has one end, and each answer is what its nodes said."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest


async def chaos(folder: Path, *argv: str) -> str:
    """Run the harness as a person does; return its report, or fail with it."""
    command = (sys.executable, "-m", "tests.chaos", "--keep", str(folder), *argv)
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    report = output.decode()
    assert process.returncode == 0, report
    return report


def counted(what: str, report: str) -> int:
    found = re.search(what, report)
    assert found, report
    return int(found[1])


# Not part of `make test` until it has been shown to be steady on a busy machine.
@pytest.mark.long
@pytest.mark.timeout(240)
async def test_nothing_is_lost_or_said_twice_whatever_dies(tmp_path: Path) -> None:
    argv = ("--minutes", "0.6", "--requests", "180", "--seed", "7", "--faults-per-minute", "45")
    report = await chaos(tmp_path, *argv)
    assert "audit: 0 violations" in report
    assert counted(r"accepted (\d+) = ", report) >= 150
    assert counted(r"faults (\d+): ", report) >= 15


@pytest.mark.long
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("seed", [11, 12, 13])
async def test_thousands_of_requests_survive_hundreds_of_faults(tmp_path: Path, seed: int) -> None:
    argv = ("--minutes", "5", "--requests", "1800", "--faults-per-minute", "30")
    report = await chaos(tmp_path, *argv, "--seed", str(seed), "--measure", "2")
    assert counted(r"faults (\d+): ", report) >= 100


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_a_cluster_loses_nothing_when_its_leader_dies(tmp_path: Path) -> None:
    argv = ("--minutes", "3", "--seed", "21", "--profile", "cluster", "--faults-per-minute", "20")
    report = await chaos(tmp_path, *argv)
    assert "kill_nats_leader" in report


@pytest.mark.long
@pytest.mark.engine
@pytest.mark.timeout(900)
async def test_the_real_engine_survives_it_too(tmp_path: Path) -> None:
    argv = ("--minutes", "3", "--seed", "31", "--engine", "real", "--faults-per-minute", "10")
    report = await chaos(tmp_path, *argv, "--requests", "36", "--deadline-s", "240")
    assert counted(r"accepted (\d+) = ", report) >= 30
