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


@pytest.mark.timeout(240)
async def test_nothing_is_lost_or_said_twice_whatever_dies(tmp_path: Path) -> None:
    # A vanished client's reader is there for half a minute more: that is waited for elsewhere.
    argv = ("--minutes", "0.5", "--requests", "150", "--seed", "7", "--without", "client_vanishes")
    report = await chaos(tmp_path, *argv, "--faults-per-minute", "45")
    assert "audit: 0 violations" in report
    assert counted(r"accepted (\d+) = ", report) >= 145
    assert counted(r"faults (\d+): ", report) >= 15


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [11, 12, 13, 14, 15])
async def test_thousands_of_requests_survive_hundreds_of_faults(tmp_path: Path, seed: int) -> None:
    """Cancels are held to their bound, too: part of the audit where they are measured."""
    argv = ("--minutes", "4.2", "--requests", "1050", "--faults-per-minute", "30")
    report = await chaos(tmp_path, *argv, "--seed", str(seed), "--measure", "2")
    print(report)
    assert counted(r"accepted (\d+) = ", report) >= 1000
    assert counted(r"faults (\d+): ", report) >= 100
    assert counted(r"mid-stream +(\d+) ", report) >= 1


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_a_cluster_loses_nothing_when_servers_die(tmp_path: Path) -> None:
    argv = ("--minutes", "5.2", "--seed", "21", "--profile", "cluster", "--requests", "900")
    report = await chaos(tmp_path, *argv, "--faults-per-minute", "25")
    print(report)
    for kind in ("kill_nats_leader", "kill_nats_follower", "freeze_nats_follower"):
        assert kind in report


@pytest.mark.long
@pytest.mark.engine
@pytest.mark.timeout(900)
async def test_the_real_engine_survives_it_too(tmp_path: Path) -> None:
    argv = ("--minutes", "3", "--seed", "31", "--engine", "real", "--faults-per-minute", "10")
    report = await chaos(tmp_path, *argv, "--requests", "36", "--deadline-s", "240")
    print(report)
    assert counted(r"accepted (\d+) = ", report) >= 30
