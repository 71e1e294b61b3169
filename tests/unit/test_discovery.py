"""A pool's URLs stand for endpoints; a name stands for all its addresses."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from services.runtime.discovery import Directory, addresses
from services.runtime.settings import EngineSettings
from services.runtime.urls import Name


class Names:
    """A name server of the test's own."""

    def __init__(self, **hosts: list[str]) -> None:
        self.hosts = hosts

    async def __call__(self, host: str, _port: int) -> Sequence[str]:
        if host not in self.hosts:
            raise OSError("Name or service not known")
        return self.hosts[host]


async def test_a_name_stands_for_all_its_addresses() -> None:
    names = Names(engines=["10.0.0.2", "10.0.0.1", "10.0.0.2", "[fd00::1]"])
    directory = Directory(["dns+http://engines:8080", "http://other:80/v1"], names)
    assert directory.urls() == ["http://other:80"]
    await directory.look(1)
    assert directory.urls() == [
        "http://other:80",
        "http://10.0.0.1:8080",
        "http://10.0.0.2:8080",
        "http://[fd00::1]:8080",
    ]


async def test_addresses_come_and_go() -> None:
    names = Names(engines=["10.0.0.1"])
    directory = Directory(["dns+http://engines"], names)
    await directory.look(1)
    names.hosts["engines"] = ["10.0.0.2"]
    await directory.look(1)
    assert directory.urls() == ["http://10.0.0.2:80"]


async def test_a_name_server_that_fails_or_hangs_takes_no_endpoint_away() -> None:
    names = Names(engines=["10.0.0.1"])
    directory = Directory(["dns+http://engines"], names)
    await directory.look(1)
    names.hosts.clear()
    await directory.look(1)
    assert directory.urls() == ["http://10.0.0.1:80"]

    async def hang(_host: str, _port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        raise AssertionError

    stuck = Directory(["dns+http://engines", "http://a"], hang)
    await stuck.look(0.01)
    assert stuck.urls() == ["http://a"]


async def test_the_systems_own_names_are_used() -> None:
    assert "127.0.0.1" in await addresses("localhost", 80)


@pytest.mark.parametrize(
    "url",
    [
        "dns+https://a:1",
        "dns+ftp://a",
        "dns+http://",
        "dns+http://pods..svc:80",
        f"dns+http://{'a' * 64}:80",
        "dns+http://a:99999",
        "dns+http://a:80/prefix",
    ],
)
def test_a_name_that_cannot_work_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"dns\+http://"):
        Name.of(url)


@pytest.mark.parametrize("urls", [[], ["a:1"], ["ftp://a"], ["http://"], ["http://a:b"]])
def test_what_is_no_url_is_refused(urls: list[str]) -> None:
    with pytest.raises(ValueError, match=r"http://|at least one"):
        Directory(urls)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("dns+http://", "'dns+http://' names no host"),
        ("http://", "'http://' names no host"),
        ("dns+http://x:99999", "'dns+http://x:99999' is no address: Port out of range 0-65535"),
        ("http://a,http://a:b", "'http://a:b' is no address"),
        ("dns+https://x:80", "begins with dns+http://, not 'dns+https://x:80'"),
        ("dns+http://pods..svc:80", "'dns+http://pods..svc:80' is no DNS name"),
        ("a:80", "'a:80' is not an http://, https:// or dns+http:// address"),
    ],
)
def test_a_setting_that_is_no_url_is_told_with_its_name(
    url: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        EngineSettings.load(["--small-urls", url])
    said = capsys.readouterr().err
    assert told in said
    assert "--small-urls [SKELGRAPH_SMALL_URLS]" in said


def test_one_url_in_two_forms_is_one_endpoint() -> None:
    assert Directory(["http://a:1", "http://a:1/", "http://a:1/v1"]).urls() == ["http://a:1"]
