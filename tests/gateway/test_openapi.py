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


async def test_the_document_is_served(site: Site) -> None:
    async with site.http() as http:
        assert (await http.get("/openapi.json")).json() == document()


@pytest.mark.timeout(120)
async def test_schemathesis_finds_nothing(site: Site, tmp_path: Path) -> None:
    site.engine.script = writer(token_s=0, text="Yes.")
    argv = [sys.executable, "-m", "schemathesis.cli", "run", f"{site.url}/openapi.json"]
    options = ["--max-examples=8", "--seed=1", "--no-color", "--request-timeout=20"]
    limits = ["--phases=examples,coverage,fuzzing", "--exclude-checks=use_after_free"]
    process = await asyncio.create_subprocess_exec(
        *argv,
        *options,
        *limits,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()[-8000:]
