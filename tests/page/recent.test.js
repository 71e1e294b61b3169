/** What this browser remembers is shown to whoever may ask, and to nobody else. */

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { forgetAll, recentOf, remember } from "../../services/gateway/page/recent.js";

beforeEach(() => {
    const kept = new Map();
    globalThis.localStorage = {
        getItem: (name) => kept.get(name) ?? null,
        setItem: (name, value) => kept.set(name, value),
        removeItem: (name) => kept.delete(name),
    };
    remember("r1", { question: "Why?", mode: "auto" });
});

function refusing(status) {
    const problem = Object.assign(new Error("No."), { status });
    return { key: "wrong", recent: () => Promise.reject(problem) };
}

test("a gateway that is away leaves what the browser remembers", async () => {
    const { items } = await recentOf(refusing(503), () => false);
    assert.equal(items[0].id, "r1");
});

test("whoever has no key sees nothing", async () => {
    assert.deepEqual((await recentOf(refusing(401), () => false)).items, []);
});

test("what is forgotten is gone", async () => {
    forgetAll();
    assert.deepEqual((await recentOf(refusing(503), () => false)).items, []);
});
