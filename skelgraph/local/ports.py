"""Ports of this machine: a free one, and who holds one that is taken."""

from __future__ import annotations

import contextlib
import http.client
import socket
from pathlib import Path

from skelgraph.local.errors import PortTaken

HOST = "127.0.0.1"
_LISTEN = "0A"  # the state in /proc/net/tcp


def free_port() -> int:
    """Return a TCP port of the loopback address that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def free_ports(count: int) -> list[int]:
    """Return so many different free ports."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((HOST, 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def claim(port: int, purpose: str) -> int:
    """Return the port, or a free one for 0.

    Raises:
        PortTaken: Somebody listens there; the message names the process where it can be seen.
    """
    if port == 0:
        return free_port()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            holder = holder_of(port)
            by = f", held by {holder}" if holder else f" ({error.strerror})"
            raise PortTaken(f"{HOST}:{port}, wanted for {purpose}{by}") from error
    return port


def prefer(port: int) -> int:
    """Return the port if nobody has it, else a free one."""
    try:
        return claim(port, "")
    except PortTaken:
        return free_port()


def holder_of(port: int) -> str | None:
    """Return name and pid of the process that listens on a port, where /proc tells (Linux)."""
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    if not inodes:
        return None
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended, or is another user's
            if any(str(link.readlink()) in inodes for link in (process / "fd").iterdir()):
                name = (process / "comm").read_text().strip()
                return f"{name} (pid {process.name})"
    return None


def _listening_inodes(port: int) -> list[str]:
    found = []
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with contextlib.suppress(OSError):
            rows = [line.split() for line in table.read_text().splitlines()[1:]]
            found += [row[9] for row in rows if row[3] == _LISTEN and _port_of(row[1]) == port]
    return found


def _port_of(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


def http_status(port: int, path: str, timeout_s: float = 1.0) -> int | None:
    """Return the HTTP status of a page on this machine; None if nobody answers in time."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
