"""A deployment's certificates as files: what is missing is made, and the server is told of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from skelgraph.auth import certificates
from skelgraph.auth.folder import Folder
from skelgraph.auth.index import Tls

#: Whose certificate the server's is.
SERVER: Final = "server"
#: By these clients reach the server unless somebody says otherwise.
USUAL_HOSTS: Final = ("127.0.0.1", "localhost", "nats")


def complete(folder: Folder, hosts: Sequence[str], clients: Iterable[str]) -> None:
    """Make the certificates that are not there: the CA's, the server's, and one for each client.

    The server's is made anew if it is for other hosts.

    Args:
        folder: where they belong.
        hosts: by which clients reach the server; empty: as its certificate says, or as usual.
        clients: who shows one to the server.
    """
    ca = _authority(folder)
    _, path, key = folder.tls(SERVER)
    if not path.exists() or (hosts and certificates.hosts_of(path.read_bytes()) != set(hosts)):
        _write(folder, certificates.server(ca, hosts or USUAL_HOSTS), path, key)
    for name in clients:
        _, path, key = folder.tls(name)
        if not path.exists():
            _write(folder, certificates.client(ca, name), path, key)


def renew(folder: Folder, client: str) -> None:
    """Put a fresh certificate in the place of a client's; the old one stays valid."""
    _, path, key = folder.tls(client)
    _write(folder, certificates.client(_authority(folder), client), path, key)


def renew_server(folder: Folder) -> Path:
    """Put a fresh certificate for the same hosts in the place of the server's; return it."""
    _, path, key = folder.tls(SERVER)
    hosts = sorted(certificates.hosts_of(path.read_bytes()))
    _write(folder, certificates.server(_authority(folder), hosts), path, key)
    return path


def days_left(folder: Folder, names: Iterable[str]) -> dict[str, int]:
    """Return for how many days the certificates are valid that are there, by whose they are."""
    paths = {name: folder.tls(name)[1] for name in ("ca", SERVER, *names)}
    found = {name: path for name, path in paths.items() if path.exists()}
    return {name: certificates.days_left(path.read_bytes()) for name, path in found.items()}


def server_block(folder: Folder, tls: Tls) -> str:
    """Return what the server's configuration says of TLS."""
    if tls == "none":
        return ""
    ca, certificate, key = (json.dumps(str(path)) for path in folder.tls(SERVER))
    verify = f", ca_file: {ca}, verify: true" if tls == "mutual" else ""
    return f"tls {{ cert_file: {certificate}, key_file: {key}, timeout: 5{verify} }}\n"


def _authority(folder: Folder) -> certificates.Signed:
    path, *_ = folder.tls("ca")
    key = folder.path / "keys" / "ca.key"
    formerly = path.with_suffix(".key")
    if formerly.exists() and not key.exists():
        formerly.replace(key)  # with what nobody gets at, not with what servers read
    if not path.exists():
        _write(folder, certificates.authority("Skelgraph NATS CA"), path, key)
    return certificates.Signed.read(path.read_bytes(), key.read_bytes())


def _write(folder: Folder, signed: certificates.Signed, path: Path, key: Path) -> None:
    folder.write_secret(key, signed.key_pem)
    folder.write_public(path, signed.certificate_pem)
