"""The set-up job makes what the services wait for, says why it cannot, and tells no password."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from proto.names import Stream
from services.runtime.connection import Connection, without_user
from services.runtime.streams import check_provisioned
from skelgraph.local import ports
from skelgraph.local.nats import NatsServer, find_nats_server
from skelgraph.local.process import Child, ProcessSpec

USER, PASSWORD = "setup", "hush-4711"


async def provision(url: str, **env: str) -> tuple[int | None, str]:
    settings = {"SKELGRAPH_NATS_URL": url, "SKELGRAPH_LOG_FORMAT": "json", **env}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.provision"),
        env=os.environ | settings,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_the_job_makes_the_streams_and_may_run_again(nats_server: NatsServer) -> None:
    for partitions in ("3", "3"):
        code, said = await provision(nats_server.url, SKELGRAPH_PARTITIONS=partitions)
        assert code == 0, said
    async with Connection([nats_server.url], name="test") as connection:
        await connection.open(timeout_s=5)
        await check_provisioned(connection, partitions=3, ack_wait_s=10)


async def test_the_job_takes_its_bounds_from_the_environment(nats_server: NatsServer) -> None:
    code, said = await provision(nats_server.url, SKELGRAPH_MAX_QUEUED_REQUESTS="17")
    assert code == 0, said
    async with Connection([nats_server.url], name="test") as connection:
        await connection.open(timeout_s=5)
        info: Any = await connection.api(f"STREAM.INFO.{Stream.REQUESTS}")
    assert info["config"]["max_msgs"] == 17


async def test_a_refusal_is_named_and_fails_the_job(nats_server: NatsServer) -> None:
    env = {"SKELGRAPH_REPLICAS": "3", "SKELGRAPH_PROVISION_TIMEOUT_S": "2"}
    code, said = await provision(nats_server.url, **env)
    assert code == 1
    assert "replicas > 1 not supported in non-clustered mode" in said


async def test_the_job_waits_for_a_server_that_is_not_there_yet(tmp_path: Path) -> None:
    port = ports.free_port()
    waiting = asyncio.create_task(provision(f"nats://127.0.0.1:{port}"))
    await asyncio.sleep(0)
    async with NatsServer(tmp_path / "nats", port):
        code, said = await waiting
    assert code == 0, said


async def test_a_password_in_the_url_works_and_is_not_logged(tmp_path: Path) -> None:
    port, monitor = ports.free_ports(2)
    config = tmp_path / "nats.conf"
    config.write_text(
        f'listen: "127.0.0.1:{port}"\nhttp: "127.0.0.1:{monitor}"\n'
        f'jetstream {{ store_dir: "{tmp_path / "store"}" }}\n'
        f"authorization {{ user: {USER}, password: {PASSWORD} }}\n"
    )
    argv = (find_nats_server(), "--config", str(config))
    server = Child(
        ProcessSpec(name="nats", argv=argv, port=monitor, ready_path="/healthz"), tmp_path / "log"
    )
    server.launch()
    try:
        await server.ready()
        url = f"nats://{USER}:{PASSWORD}@127.0.0.1:{port}"
        code, said = await provision(url)
        assert code == 0, said
        assert f"127.0.0.1:{port}" in said
        wrong = await provision(
            f"nats://{USER}:{PASSWORD}-not@127.0.0.1:{port}", SKELGRAPH_PROVISION_TIMEOUT_S="1.5"
        )
    finally:
        server.kill()
    assert wrong[0] == 1
    assert PASSWORD not in said + wrong[1]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("tls://u:p@nats:4222", "tls://nats:4222"),
        ("nats://nats:4222", "nats://nats:4222"),
        ("u:p@nats:4222", "nats:4222"),
        ("nats://u:p@ss@nats:4222", "nats://nats:4222"),
        ("nats://[::1]:4222", "nats://[::1]:4222"),
    ],
)
def test_an_address_is_shown_without_its_user(url: str, shown: str) -> None:
    assert without_user(url) == shown
