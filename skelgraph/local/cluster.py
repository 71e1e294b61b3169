"""Three nats-servers on this machine that form a cluster, each on a store of its own."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

from proto.names import Stream
from skelgraph.local import ports
from skelgraph.local.nats import config_text, find_nats_server
from skelgraph.local.process import Child, ProcessSpec

_CLUSTER = """
cluster {{
  name: skelgraph
  listen: "{host}:{port}"
  routes: [{routes}]
}}
"""


class ClusterServer(Child):
    """One server of the cluster.

    Args:
        number: from 0, within `route_ports`.
        route_ports: where the servers listen for each other.
        folder: of its configuration, store and log.
    """

    def __init__(self, number: int, route_ports: tuple[int, ...], folder: Path) -> None:
        self.server_name = f"nats-{number + 1}"
        self.port, monitor_port = ports.free_ports(2)
        self._folder = folder.absolute()
        self._route_ports = route_ports
        self._route_port = route_ports[number]
        config = self._folder / "nats.conf"
        spec = ProcessSpec(
            name=self.server_name,
            argv=(find_nats_server(), "--config", str(config)),
            port=monitor_port,
            ready_path="/healthz?js-server-only=true",
            ready_timeout_s=60,
        )
        super().__init__(spec, self._folder / "nats.log")
        self._write_config(config)

    @property
    def url(self) -> str:
        """The address for clients."""
        return f"nats://{ports.HOST}:{self.port}"

    def _write_config(self, path: Path) -> None:
        alone = config_text(
            port=self.port, monitor_port=self.spec.port, store_dir=self._folder / "store"
        )
        routes = ", ".join(f'"nats://{ports.HOST}:{port}"' for port in self._route_ports)
        cluster = _CLUSTER.format(host=ports.HOST, port=self._route_port, routes=routes)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(alone.replace("skelgraph-local", self.server_name) + cluster)

    @property
    def monitor_url(self) -> str:
        """The address of the monitoring pages."""
        return f"http://{ports.HOST}:{self.spec.port}"

    def leads(self, stream: Stream) -> bool:
        """Whether it leads `stream` now, as it says itself; asks over HTTP, so not in the loop."""
        page = f"{self.monitor_url}/jsz?streams=true&accounts=true"
        try:
            with urllib.request.urlopen(page, timeout=2) as reply:  # noqa: S310 - our own
                told: dict[str, Any] = json.load(reply)
        except OSError:
            return False
        details = [
            detail
            for account in told.get("account_details", ())
            for detail in account.get("stream_detail", ())
        ]
        leaders = [one.get("cluster", {}).get("leader") for one in details if one["name"] == stream]
        return leaders == [self.server_name]


def cluster(folder: Path, size: int = 3) -> list[ClusterServer]:
    """Return the servers of a cluster, not started yet."""
    route_ports = tuple(ports.free_ports(size))
    return [
        ClusterServer(number, route_ports, folder / f"nats-{number + 1}") for number in range(size)
    ]
