"""Two versions of the services side by side on one NATS, replaced one by one under load."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from random import Random
from typing import Final

import pytest

from services.runtime import logs
from tests.chaos.fleet import ROLES, Fleet, Version, running, under_load
from tests.chaos.load import Load
from tests.chaos.options import Options

ROOT: Final = Path(__file__).parents[2]
#: The first version with the chaos harness: older ones lost requests by themselves.
OLD_COMMIT: Final = "69c8723"
EACH: Final = 2
NEW: Final = Version("new", ROOT)


@pytest.fixture
def old(tmp_path: Path) -> Version:
    """The sources of an earlier version."""
    asked = [
        "git",
        "-C",
        str(ROOT),
        "archive",
        "--format=tar",
        OLD_COMMIT,
        "proto",
        "services",
        "skelgraph",
    ]
    done = subprocess.run(asked, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"the history does not reach {OLD_COMMIT}")
    folder = tmp_path / "old"
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    assert sources(folder) == str(folder / "services")
    assert sources(ROOT) == str(ROOT / "services")
    return Version("old", folder)


def sources(folder: Path) -> str:
    """Where a service that is started from `folder` finds its code."""
    command = (sys.executable, "-P", "-c", "import services; print(services.__path__[0])")
    env = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(
        command, env=env, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logs.configure("error", "console")


async def provision(fleet: Fleet, version: Version) -> None:
    """The set-up job of the new version, on streams that the old one has made, under load."""
    env = fleet._env("provision", 0) | {"PYTHONPATH": str(version.folder)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "services.provision"), env=os.environ | env
    )
    assert await process.wait() == 0


async def replace(fleet: Fleet, was: Version, to: Version, rng: Random) -> None:
    """A rolling update of all roles at once, in an order that nobody chose."""
    left = [role for role in ROLES for _ in range(EACH)]
    rng.shuffle(left)
    for role in left:
        one = fleet.of(role, was)[0]
        await fleet.add(role, to)  # maxSurge 1, maxUnavailable 0
        await fleet.retire(one)
    for role in ROLES:
        assert not fleet.of(role, was)
        assert len(fleet.of(role, to)) == EACH


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_an_upgrade_and_a_roll_back_under_load_lose_nothing(
    tmp_path: Path, old: Version, seed: int
) -> None:
    # Load lasts longer than both updates: it is cut off when they are done.
    options = Options(minutes=4, seed=seed, requests=960, deadline_s=60)
    async with running(Fleet(options, tmp_path / "run")) as fleet:
        for role in ROLES:
            for _ in range(EACH):
                await fleet.add(role, old)
        done = asyncio.Event()

        async def load_of(load: Load) -> None:
            sending = asyncio.create_task(load.run())
            await done.wait()
            sending.cancel()
            await asyncio.wait([sending])

        async def deed(load: Load) -> None:
            await load.some_ended(20)
            await provision(fleet, NEW)
            await replace(fleet, old, NEW, Random(seed))
            await load.some_ended(20)
            await replace(fleet, NEW, old, Random(-seed))
            await load.some_ended(20)
            done.set()

        outcome = await under_load(fleet, load_of, deed)
    print(
        f"{len(outcome.evidence.sent)} requests, {outcome.answered} ended, {len(fleet.deeds)} deeds"
    )
    assert outcome.violations == []
    assert outcome.answered >= 60
