import assert from "node:assert/strict";
import { test } from "node:test";

import {
    addPiece,
    answerParts,
    fold,
    newPartial,
    newRun,
    partialText,
    planState,
    poolOf,
    runState,
    stateOf,
} from "../../services/gateway/page/fold.js";
import {
    REQUEST,
    accepted,
    answered,
    decoded,
    ended,
    failed,
    plan,
    planned,
    released,
    reset,
    started,
    tokens,
} from "./facts.js";

export function folded(...events) {
    const run = newRun(REQUEST, 0);
    events.forEach((event, second) => fold(run, event, 1001 + second));
    return run;
}

const BEGUN = [accepted(), planned(1), planned(2, [1])];

test("a node goes from waiting to decoded", () => {
    assert.equal(stateOf(folded(...BEGUN), 2), "waiting");
    assert.equal(stateOf(folded(...BEGUN), 1), "queued");
    assert.equal(stateOf(folded(...BEGUN, released(1), started(1)), 1), "decoding");
    assert.equal(stateOf(folded(...BEGUN, decoded(1)), 1), "decoded");
    assert.equal(stateOf(folded(...BEGUN, decoded(1)), 2), "queued");
});

test("a failed attempt is tried again, unless trying is of no use", () => {
    assert.equal(stateOf(folded(...BEGUN, started(1), failed(1)), 1), "retry");
    assert.equal(stateOf(folded(...BEGUN, failed(1), started(1, 2)), 1), "decoding");
    const lost = folded(...BEGUN, failed(1, 1, false));
    assert.equal(stateOf(lost, 1), "failed");
    assert.equal(stateOf(lost, 2), "skipped");
});

test("what is not decoded at the end was cancelled, or is not used", () => {
    assert.equal(stateOf(folded(...BEGUN, ended()), 1), "cancelled");
    assert.equal(stateOf(folded(...BEGUN, decoded(1), ended()), 1), "decoded");
    assert.equal(stateOf(folded(...BEGUN, failed(1), ended("node_gave_up")), 1), "failed");
    assert.equal(stateOf(folded(...BEGUN, plan([0])), 1), "skipped");
    assert.equal(stateOf(folded(...BEGUN, decoded(0), answered([0])), 2), "skipped");
});

test("the nodes of a dry run stay planned", () => {
    const run = folded(accepted({ dry_run: true }), planned(1), planned(2, [1]));
    assert.deepEqual([stateOf(run, 1), stateOf(run, 2)], ["planned", "planned"]);
});

test("the order in which previews and facts arrive does not matter", () => {
    const events = [accepted(), planned(1), released(1), tokens(1, 0, "Te"), decoded(1), plan([1])];
    const rotations = events.map((_, index) => [...events.slice(index), ...events.slice(0, index)]);
    for (const order of rotations) {
        const run = folded(...order);
        assert.equal(stateOf(run, 1), "decoded");
        assert.deepEqual(answerParts(run), [
            { id: 1, text: "Text 1.", isWhole: true, phase: "ordered" },
        ]);
    }
});

test("text is in order only behind whole texts, and ahead of its turn otherwise", () => {
    const events = [...BEGUN, planned(3), plan([1, 2, 3]), tokens(1, 0, "One"), decoded(3)];
    const phases = (run) => answerParts(run).map((part) => part.phase);
    assert.deepEqual(phases(folded(...events)), ["ordered", "empty", "ahead"]);
    assert.deepEqual(phases(folded(...events, decoded(1))), ["ordered", "empty", "ahead"]);
    assert.deepEqual(phases(folded(...events, decoded(1), tokens(2, 0, "T"))), [
        "ordered",
        "ordered",
        "ahead",
    ]);
    assert.deepEqual(phases(folded(...events, ended())), ["ordered", "empty", "ordered"]);
});

test("pieces may come in any order, doubled and with gaps; offsets count code points", () => {
    const partial = newPartial();
    for (const [offset, text] of [
        [3, " end"],
        [0, "a😀"],
        [0, "a"],
        [2, "b"],
        [3, " end"],
    ]) {
        addPiece(partial, offset, text);
    }
    assert.equal(partialText(partial), "a😀b end");
    const missed = newPartial();
    addPiece(missed, 9, "later");
    assert.equal(partialText(missed), " … later");
});

test("a reset voids the text, and the old attempt's late pieces stay void", () => {
    const run = folded(
        ...BEGUN,
        plan([1, 2]),
        tokens(1, 0, "old"),
        reset(1),
        tokens(1, 3, " late"),
    );
    assert.equal(answerParts(run)[0].text, "");
    fold(run, tokens(1, 0, "new", 1, 2), 1010);
    assert.equal(answerParts(run)[0].text, "new");
});

test("a fallback replaces the plan's nodes by the direct answer", () => {
    const run = folded(
        ...BEGUN,
        plan([1, 2]),
        failed(1, 1, false),
        released(0),
        tokens(0, 0, "So"),
    );
    assert.deepEqual(
        answerParts(run).map((part) => part.id),
        [0],
    );
});

test("the request and the plan say what they do", () => {
    const said = (...events) => [runState(folded(...events)), planState(folded(...events))];
    assert.deepEqual(said(), ["queued", "queued"]);
    assert.deepEqual(said(...BEGUN), ["planning", "decoding"]);
    assert.deepEqual(said(...BEGUN, plan([1, 2])), ["decoding", "decoded"]);
    assert.deepEqual(said(...BEGUN, plan([1, 2]), answered([1, 2])), ["answered", "decoded"]);
    assert.deepEqual(said(...BEGUN, ended()), ["cancelled", "cancelled"]);
    assert.deepEqual(said(...BEGUN, ended("deadline_exceeded")), ["failed", "cancelled"]);
});

test("the pool of a node whose start was missed follows from the rule; its fact wins", () => {
    const run = folded(
        accepted({ mode: "sgd" }),
        planned(1, [], "easy"),
        planned(2),
        planned(3, [], "easy"),
    );
    for (const id of [1, 2]) fold(run, tokens(id, 0, "x"), 1010);
    assert.deepEqual(
        [1, 2, 3].map((id) => poolOf(run, run.nodes.get(id))),
        ["small", "large", null],
    );
    fold(run, decoded(1, { pool: "large" }), 1011);
    assert.equal(poolOf(run, run.nodes.get(1)), "large");
});
