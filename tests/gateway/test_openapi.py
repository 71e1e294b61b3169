"""The OpenAPI document is what the gateway does: schemathesis asks it all sorts of things."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from services.gateway.openapi import document
from tests.gateway.site import Site
from tests.scripted_engine import writer

pytestmark = pytest.mark.asyncio(loop_scope="package")

PROGRAM = Path(sys.executable).with_name("schemathesis")
CONFIG = Path(__file__).with_name("schemathesis.toml")

#: The same calls each time, so that a failure is of the change that is tested.
STEADY = ["--generation-deterministic", "--phases=coverage,fuzzing", "--max-examples=15"]
FREE = ["--max-time=150", "--max-examples=200"]


async def test_the_document_is_served(site: Site) -> None:
    async with site.http() as http:
        assert (await http.get("/openapi.json")).json() == document()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("options", [STEADY, pytest.param(FREE, marks=pytest.mark.long)])
async def test_schemathesis_finds_nothing(site: Site, tmp_path: Path, options: list[str]) -> None:
    site.engine.script = writer(token_s=0, text="Yes.")
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        f"--config-file={CONFIG}",
        "run",
        f"{site.url}/openapi.json",
        "--no-color",
        "--request-timeout=20",
        *options,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
