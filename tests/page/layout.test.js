import assert from "node:assert/strict";
import { test } from "node:test";

import { fold, newRun } from "../../services/gateway/page/fold.js";
import { graphItems, neighbour } from "../../services/gateway/page/graph.js";
import { layOut, spread } from "../../services/gateway/page/layout.js";
import { accepted, decoded, planned } from "./facts.js";

const item = (key, ...needs) => ({ key, needs });

/** Numbers that look random and are the same in each run. */
function* numbers(seed) {
    for (let state = seed; ;)
        yield (state = (state * 1103515245 + 12345) % 2147483648) / 2147483648;
}

function randomGraph(seed, count) {
    const random = numbers(seed);
    const below = (most) => Math.floor(random.next().value * most);
    return Array.from({ length: count }, (_, index) => {
        const needs = new Set(
            Array.from({ length: below(Math.min(index, 3) + 1) }, () => `n${below(index)}`),
        );
        return item(`n${index}`, ...needs);
    });
}

test("each item stands right of all that it needs, and no two overlap", () => {
    for (let seed = 1; seed <= 40; seed++) {
        const items = randomGraph(seed, 1 + seed);
        const { places, columns, rows } = layOut(items);
        for (const { key, needs } of items) {
            const { column, row } = places.get(key);
            assert.ok(needs.every((need) => places.get(need).column < column));
            assert.ok(column < columns && row >= 0.49 && row <= rows - 0.49, `${row} of ${rows}`);
        }
        const all = [...places.values()];
        for (const one of all) {
            const same = all.filter((other) => other !== one && other.column === one.column);
            assert.ok(same.every((other) => Math.abs(other.row - one.row) > 0.999));
        }
    }
});

test("the order of the plan is kept where it costs no crossing", () => {
    const { places } = layOut([
        item("plan"),
        item("1", "plan"),
        item("2", "plan"),
        item("3", "plan"),
        item("4", "2"),
    ]);
    assert.ok(places.get("1").row < places.get("2").row);
    assert.ok(places.get("2").row < places.get("3").row);
    assert.equal(places.get("4").row, places.get("2").row);
});

test("a column is reordered where that takes crossings away", () => {
    const items = [item("a"), item("b"), item("x", "b"), item("y", "a")];
    const { places } = layOut(items);
    assert.equal(
        places.get("a").row < places.get("b").row,
        places.get("y").row < places.get("x").row,
    );
});

test("a line that passes a column has a place of its own in it", () => {
    const { edges, places } = layOut([item("a"), item("b", "a"), item("c", "b", "a")]);
    const { via } = edges.find((edge) => edge.from === "a" && edge.to === "c");
    assert.equal(via.length, 1);
    assert.ok(Math.abs(via[0].row - places.get("b").row) >= 0.69);
});

test("cells are moved as little as their room wants", () => {
    assert.deepEqual(spread([0, 5, 9], [1, 1, 1]), [0, 5, 9]);
    assert.deepEqual(spread([1, 1], [1, 1]), [0.5, 1.5]);
});

function runOf(count, needsOf = () => []) {
    const run = newRun("r", 0);
    fold(run, accepted(), 1);
    for (let id = 1; id <= count; id++) fold(run, planned(id, needsOf(id)), 2);
    return run;
}

test("above 200 nodes those of one depth and state are one item, and none is lost", () => {
    const run = runOf(250, (id) => (id > 100 ? [id - 100] : []));
    for (let id = 1; id <= 30; id++) fold(run, decoded(id), 3);
    const items = graphItems(run);
    assert.ok(items.length < 12);
    assert.equal(items.flatMap((one) => one.ids).length, 250);
    const columns = layOut(items).places;
    for (const one of items)
        for (const need of one.needs)
            assert.ok(columns.get(need).column < columns.get(one.key).column);
    assert.equal(graphItems(runOf(200)).length, 201);
});

test("arrow keys reach every node", () => {
    const run = runOf(7, (id) => ({ 5: [1, 4], 6: [2, 3], 7: [5, 6] })[id] ?? []);
    const items = graphItems(run);
    const layout = layOut(items);
    const reached = new Set(["plan"]);
    for (const key of reached) {
        for (const direction of ["left", "right", "up", "down"]) {
            const next = neighbour(layout, key, direction);
            if (next) reached.add(next);
        }
    }
    assert.equal(reached.size, 8);
});
