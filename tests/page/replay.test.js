import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import {
    answerParts,
    fold,
    newRun,
    runState,
    shownIds,
    stateOf,
} from "../../services/gateway/page/fold.js";
import { Player, script } from "../../services/gateway/page/replay.js";

/** The facts of a real request on the local stack. */
const FACTS = readFileSync(new URL("recorded.jsonl", import.meta.url), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line))
    .map((event) => ({ at: event.stored_at, event }));

const player = () => new Player("recorded", FACTS);

function direct() {
    const run = newRun("recorded", 0);
    for (const { at, event } of FACTS) fold(run, event, at);
    return run;
}

test("a replay ends in what the facts say", () => {
    const played = player();
    const run = played.seek(played.lengthS);
    assert.equal(runState(run), "answered");
    assert.deepEqual(answerParts(run), answerParts(direct()));
});

test("nothing is seen before it happened, and all of it then", () => {
    const played = player();
    const seen = new Set();
    for (let atS = 0; atS <= played.lengthS; atS += played.lengthS / 200) {
        const run = played.seek(atS);
        for (const id of shownIds(run)) {
            seen.add(stateOf(run, id));
            if (run.nodes.get(id).decoded)
                assert.ok(run.nodes.get(id).decodedAt - played.begunAt <= atS);
        }
    }
    assert.deepEqual([...seen].sort(), ["decoded", "decoding"]);
});

test("a node's text grows while it is decoded, and is its beginning at any moment", () => {
    const played = player();
    const whole = new Map(answerParts(direct()).map((part) => [part.id, part.text]));
    let partials = 0;
    for (let atS = 0; atS < played.lengthS; atS += played.lengthS / 300) {
        for (const part of answerParts(played.seek(atS))) {
            assert.ok(whole.get(part.id).startsWith(part.text));
            if (part.text && !part.isWhole) partials++;
        }
    }
    assert.ok(partials > 50);
});

test("going back shows the same as going forward did", () => {
    const played = player();
    const middle = played.lengthS / 2;
    const forward = JSON.stringify(answerParts(played.seek(middle)));
    played.seek(played.lengthS);
    assert.equal(JSON.stringify(answerParts(played.seek(middle))), forward);
});

test("the script keeps facts in their order", () => {
    const kept = script(FACTS).filter((one) => "stored_at" in one.event);
    assert.deepEqual(
        kept.map((one) => one.event.type),
        FACTS.map((one) => one.event.type),
    );
});

test("a request without facts has nothing to replay", () => {
    assert.equal(new Player("none", []).lengthS, 0);
});
