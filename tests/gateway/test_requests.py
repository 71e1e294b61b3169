"""Skelgraph's own API: submit, look, follow and resume, cancel; idempotency keys."""

from __future__ import annotations

import pytest

from tests.gateway.site import Site, chat, endless, follow

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_all_events_of_a_request_come_in_order_and_can_be_resumed_elsewhere(
    site: Site,
) -> None:
    async with site.http() as http:
        submitted = await http.post("/v1/requests", json={"question": "Why?", "mode": "sgd"})
        assert submitted.status_code == 202
        request = submitted.json()["id"]
        got = await follow(http, request)
        view = (await http.get(f"/v1/requests/{request}")).json()
    facts = [one for one in got if one.ident is not None]
    names = [one.name for one in facts]
    assert names[0] == "request_accepted"
    assert names.count("node_planned") == names.count("node_decoded") == 4
    assert names[-1] == "answer_assembled"
    assert [one.ident for one in facts] == sorted(one.ident or 0 for one in facts)
    assert "tokens_decoded" in {one.name for one in got if one.ident is None}
    assert view["state"] == "answered"
    assert view["answer"] == facts[-1].data["text"]
    assert {node["state"] for node in view["nodes"]} == {"decoded"}
    assert view["last_event"] == facts[-1].ident

    _, url = await site.another_gateway()
    half = facts[len(facts) // 2]
    async with site.http(url=url) as http:
        rest = await follow(http, request, **{"Last-Event-ID": str(half.ident)})
        assert [one.data for one in rest] == [one.data for one in facts[len(facts) // 2 + 1 :]]
        seen = {"Last-Event-ID": str(facts[-1].ident)}
        done = await http.get(f"/v1/requests/{request}/events", headers=seen)
        listed = (await http.get("/v1/requests?limit=50")).json()["data"]
    assert done.status_code == 204
    (entry,) = [one for one in listed if one["id"] == request]
    assert (entry["state"], entry["question"]) == ("answered", "Why?")


async def test_a_request_can_be_looked_at_and_cancelled(site: Site) -> None:
    site.engine.script = endless(2)
    async with site.http() as http:
        submitted = await http.post("/v1/requests", json={"question": "Why?", "mode": "direct"})
        path = submitted.headers["location"]
        await (await site.engine.call(1)).waiting.wait()
        view = (await http.get(path)).json()
        assert (view["state"], view["nodes"][0]["state"]) == ("decoding", "ready")
        outcome = (await http.delete(path)).json()["outcome"]
        again = (await http.delete(path)).json()["outcome"]
        view = (await http.get(path)).json()
    assert (outcome, again) == ("cancelled", "cancelled")  # twice is as good as once
    assert (view["state"], view["error"]["code"]) == ("cancelled", "cancelled")


async def test_a_skeleton_is_drafted_without_an_answer(site: Site) -> None:
    async with site.http() as http:
        response = await http.post("/v1/skeletons", json={"question": "Why?", "mode": "sgd"})
        body = response.json()
    assert response.status_code == 200, body
    assert [node["id"] for node in body["nodes"]] == [1, 2, 3, 4]
    assert len(site.engine.calls) == 1


async def test_what_is_not_there_is_404_and_a_bad_id_400(site: Site) -> None:
    async with site.http() as http:
        for method, path, status in [
            ("GET", "/v1/requests/nothing", 404),
            ("DELETE", "/v1/requests/nothing", 404),
            ("GET", "/v1/requests/nothing/events", 404),
            ("GET", "/v1/requests/a.b", 400),
            ("GET", "/v1/models/gpt-4", 404),
            ("GET", "/v1/nothing", 404),
            ("PUT", "/v1/requests", 405),
            ("GET", "/v1/requests?limit=no", 400),
        ]:
            response = await http.request(method, path)
            assert response.status_code == status, path
            assert response.json()["error"]["code"]
        refused = await http.options("/v1/requests")
    assert {*refused.headers["allow"].split(", ")} == {"GET", "HEAD", "POST"}


@pytest.mark.parametrize(
    ("query", "header", "field"),
    [
        ("after=x", "", "after"),
        (f"after={10**18}", "5", "after"),
        ("after=5", "-1", "Last-Event-ID"),
        ("after=5&previews=maybe", "", "previews"),
    ],
)
async def test_every_parameter_of_a_request_that_has_ended_is_checked_too(
    site: Site, query: str, header: str, field: str
) -> None:
    async with site.http() as http:
        submitted = await http.post("/v1/requests", json={"question": "Why?", "mode": "direct"})
        request = submitted.json()["id"]
        await follow(http, request)
        headers = {"Last-Event-ID": header} if header else {}
        answer = await http.get(f"/v1/requests/{request}/events?{query}", headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field


async def test_the_same_idempotency_key_means_the_same_answer(site: Site) -> None:
    headers = {"Idempotency-Key": "once"}
    async with site.http() as http:
        first = await http.post("/v1/chat/completions", json=chat(), headers=headers)
        calls = len(site.engine.calls)
        again = await http.post("/v1/chat/completions", json=chat(), headers=headers)
        other = await http.post("/v1/chat/completions", json=chat(seed=1), headers=headers)
    assert again.json()["choices"] == first.json()["choices"]
    assert again.headers["x-request-id"] == first.headers["x-request-id"]
    assert len(site.engine.calls) == calls
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")


async def test_a_key_whose_request_was_cancelled_asks_anew(site: Site) -> None:
    headers = {"Idempotency-Key": "cancelled"}
    async with site.http() as http:
        first = await http.post("/v1/requests", json={"question": "Why?"}, headers=headers)
        await http.delete(first.headers["location"])
        again = await http.post("/v1/requests", json={"question": "Why?"}, headers=headers)
    assert first.json()["id"] != again.json()["id"]
