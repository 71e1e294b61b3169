import assert from "node:assert/strict";
import { test } from "node:test";

import { eventParser } from "../../services/gateway/page/sse.js";

const WIRE =
    'retry: 1000\n\n: keep-alive\n\nid: 7\nevent: node_planned\ndata: {"a":1}\n\nevent: tokens_decoded\r\ndata: x\r\ndata: y\r\n\r\n';
const EVENTS = [
    { id: "7", event: "node_planned", data: '{"a":1}' },
    { id: null, event: "tokens_decoded", data: "x\ny" },
];

test("events come out the same however the text is cut", () => {
    for (let size = 1; size <= WIRE.length; size++) {
        const parse = eventParser();
        const found = [];
        for (let at = 0; at < WIRE.length; at += size)
            found.push(...parse(WIRE.slice(at, at + size)));
        assert.deepEqual(found, EVENTS, `in pieces of ${size}`);
    }
});

test("an event that is not complete is not handed out", () => {
    assert.deepEqual(eventParser()("data: half"), []);
});
