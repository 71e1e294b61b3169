import assert from "node:assert/strict";
import { test } from "node:test";

import { fold, newRun } from "../../services/gateway/page/fold.js";
import {
    bars,
    mostAtOnce,
    sequence,
    speedUp,
    ticks,
    wallS,
} from "../../services/gateway/page/timeline.js";
import {
    accepted,
    answered,
    decoded,
    ended,
    failed,
    plan,
    planned,
    released,
    started,
    tokens,
} from "./facts.js";

function runOf(events) {
    const run = newRun("r1", 0);
    for (const [at, event] of events) fold(run, event, at);
    return run;
}

const STORY = [
    [1000.1, accepted()],
    [1000.4, planned(1)],
    [1000.5, planned(2)],
    [1000.6, plan([1, 2])],
    [1001.5, decoded(1)],
    [1002.0, decoded(2, { pool: "small", decode_ms: 1200 })],
];

const near = (actual, expected) =>
    assert.ok(Math.abs(actual - expected) < 1e-6, `${actual} is not ${expected}`);

test("queue, first token and decoding stand apart, in seconds since the request", () => {
    const [planBar, one, two] = bars(runOf(STORY), 1003);
    near(planBar.startedS, 0.1);
    near(planBar.endedS, 0.6);
    assert.equal(planBar.linesS.length, 2);
    near(one.releasedS, 0.4);
    near(one.startedS, 0.5);
    near(one.firstTokenS, 0.7);
    near(one.endedS, 1.5);
    assert.equal(two.pool, "small");
});

test("a running node grows until now, or until the request's end", () => {
    const begun = [
        ...STORY.slice(0, 4),
        [1000.7, released(1)],
        [1000.9, started(1)],
        [1001.2, tokens(1, 0, "x")],
    ];
    const [, running] = bars(runOf(begun), 1002);
    assert.deepEqual([running.isRunning, running.endedS], [true, 2]);
    near(running.firstTokenS, 1.2);
    const [, stopped] = bars(runOf([...begun, [1001.5, ended()]]), 1009);
    assert.deepEqual([stopped.isRunning, stopped.endedS], [false, 1.5]);
});

test("a preview that overtakes another does not turn a bar around", () => {
    const [, bar] = bars(
        runOf([...STORY.slice(0, 4), [1000.9, started(1)], [1000.95, released(1)]]),
        1002,
    );
    assert.ok(bar.releasedS <= bar.startedS);
});

test("one after another is the plan and each node's engine call, end to end", () => {
    const run = runOf(STORY);
    const { segments, totalS } = sequence(run, bars(run, 1003));
    assert.deepEqual(
        segments.map((part) => part.id),
        [null, 1, 2],
    );
    near(totalS, 0.5 + 1.0 + 1.2);
    segments.slice(1).forEach((part, index) => near(part.fromS, segments[index].toS));
});

test("the speed-up of an answer is what the service measured; of a failure there is none", () => {
    const run = runOf([...STORY, [1002.01, answered([1, 2])]]);
    assert.equal(speedUp(run, 1002), 1.5);
    assert.equal(wallS(run, 5000), 4);
    assert.equal(speedUp(runOf([...STORY, [1002.01, ended()]]), 1003), null);
});

test("the critical path is marked, and failed attempts are", () => {
    const run = runOf([...STORY, [1001.0, failed(2)], [1002.01, answered([1, 2])]]);
    const [planBar, one, two] = bars(run, 1003);
    assert.deepEqual([planBar.isCritical, one.isCritical, two.isCritical], [true, false, true]);
    assert.equal(two.failedS.length, 1);
});

test("bars that touch do not count as at once", () => {
    const bar = (startedS, endedS) => ({ startedS, endedS });
    assert.equal(mostAtOnce([bar(0, 1), bar(1, 2), bar(0.5, 1.5)]), 2);
    assert.equal(mostAtOnce([]), 0);
});

test("ticks are round and within the axis", () => {
    for (const end of [0.03, 0.9, 1, 7.77, 60, 1234]) {
        const found = ticks(end);
        assert.equal(found[0], 0);
        assert.ok(found.length <= 10 && found.at(-1) <= end + 1e-9);
    }
    assert.deepEqual(ticks(10, 5), [0, 2, 4, 6, 8, 10]);
});
