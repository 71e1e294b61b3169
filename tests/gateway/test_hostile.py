"""Who may call, how much, and what becomes of those who mean no good."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from pathlib import Path

import pytest

from services.gateway.keys import entry, new_key
from tests.gateway.site import Site, chat, endless
from tests.scripted_engine import writer

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_keys_part_owners_and_bound_what_each_may_ask(site: Site, tmp_path: Path) -> None:
    alice, bob, carol = new_key(), new_key(), new_key()
    file = tmp_path / "keys.toml"
    file.write_text(
        entry("alice", alice, {"max_in_flight": 1}) + entry("bob", bob, {"tokens_per_minute": 5})
    )
    (_, one), (_, two) = await asyncio.gather(
        site.another_gateway(keys_file=str(file), max_streams="1"),
        site.another_gateway(keys_file=str(file)),
    )
    site.engine.script = endless(1)
    ask = {"question": "Why?", "mode": "direct"}
    async with (
        site.http(alice, one) as as_alice,
        site.http(alice, two) as alice_elsewhere,
        site.http(bob, one) as as_bob,
        site.http(carol, one) as as_carol,
        site.http(None, one) as as_nobody,
    ):
        refused = await as_nobody.get("/v1/models")
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"
        assert (await as_carol.get("/v1/models")).status_code == 401

        path = (await as_alice.post("/v1/requests", json=ask)).headers["location"]
        for method, where in [("GET", ""), ("DELETE", ""), ("GET", "/events")]:
            assert (await as_bob.request(method, path + where)).status_code == 404
        assert (await as_bob.get("/v1/requests")).json()["data"] == []
        await (await site.engine.call(1)).waiting.wait()  # so it is accepted: known everywhere
        hers = (await as_alice.get("/v1/requests")).json()["data"]
        assert [f"/v1/requests/{one['id']}" for one in hers] == [path]
        assert (await as_alice.get(path)).status_code == 200
        for method, where in [("GET", ""), ("DELETE", ""), ("GET", "/events")]:
            assert (await as_bob.request(method, path + where)).status_code == 404
        assert (await as_bob.get("/v1/requests")).json()["data"] == []
        async with as_alice.stream("GET", path + "/events") as events:
            assert events.status_code == 200
            many = await as_alice.get(path + "/events")
            assert (many.status_code, many.json()["error"]["code"]) == (429, "too_many_streams")
        for http in (as_alice, alice_elsewhere):
            busy = await http.post("/v1/requests", json=ask)
            assert (busy.status_code, busy.json()["error"]["code"]) == (429, "too_many_requests")
            assert int(busy.headers["retry-after"]) >= 1
        shown = await alice_elsewhere.get(path)
        assert shown.status_code == 200
        assert shown.headers["x-ratelimit-remaining-requests"] == "0"
        assert (await alice_elsewhere.delete(path)).status_code == 200

        site.engine.script = writer(token_s=0.001)
        body = chat(model="skelgraph-direct")
        assert (await as_bob.post("/v1/chat/completions", json=body)).status_code == 200
        spent = await as_bob.post("/v1/chat/completions", json=body)
        assert (spent.status_code, spent.json()["error"]["code"]) == (429, "tokens_per_minute")
        assert 1 <= int(spent.headers["retry-after"]) <= 60

        file.write_text(entry("carol", carol, {}))
        async with asyncio.timeout(10):
            while (await as_carol.get("/v1/models")).status_code != 200:  # noqa: ASYNC110  # a file
                await asyncio.sleep(0.1)
        assert (await as_alice.get("/v1/models")).status_code == 401


async def test_slow_and_endless_heads_and_bodies_are_refused(site: Site) -> None:
    _, url = await site.another_gateway(head_timeout_s="0.5", body_timeout_s="0.5")
    port = int(url.rpartition(":")[2])

    async def said(*pieces: bytes) -> bytes:
        reader, writer_ = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                writer_.write(piece)
                await writer_.drain()
        async with asyncio.timeout(5):
            answer = await reader.read()
        writer_.close()
        return answer

    post = b"POST /v1/requests HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    assert b"408" in await said(b"GET / HTTP/1.1\r\nHost: local")
    assert b"408" in await said(b"")
    assert b"408" in await said(post + b"Content-Length: 50\r\n\r\n{")
    assert b"413" in await said(post + b"Content-Length: 5000000\r\n\r\n{")
    chunk = b"%x\r\n%b\r\n" % (65536, b"x" * 65536)
    assert b"413" in await said(post + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 10)
    assert b"431" in await said(b"GET / HTTP/1.1\r\n", *[b"X: " + b"y" * 9000 + b"\r\n"] * 5)


async def test_a_packed_body_is_not_unpacked(site: Site) -> None:
    head = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    body = gzip.compress(b'{"question": "Why?", "mode": "direct"}')
    async with site.http() as http:
        for path in ("/v1/requests", "/v1/chat/completions"):
            refused = await http.post(path, content=body, headers=head)
            assert refused.status_code == 400, refused.text


async def test_a_foreign_page_gets_nothing_from_a_gateway_without_keys(site: Site) -> None:
    async with site.http() as http:
        rebound = await http.get("/v1/models", headers={"Host": "evil.example"})
        plain = await http.post("/v1/requests", content=b'{"question":"Why?"}')
        preflight = await http.options(
            "/v1/requests",
            headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"},
        )
        models = await http.get("/v1/models", headers={"Origin": "http://evil.example"})
    assert (rebound.status_code, plain.status_code, preflight.status_code) == (403, 415, 405)
    assert "access-control-allow-origin" not in models.headers
    assert models.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'self'" in models.headers["content-security-policy"]
    assert models.headers["x-frame-options"] == "DENY"
