/**
 * What the graph shows: the plan, the nodes, or groups of nodes where they are too many.
 *
 * Pure. Items are in an order in which each needs only earlier ones.
 */

import { isFallback, needsOf, planState, shownIds, stateOf } from "./fold.js";

/** Above so many nodes those of one depth and state are drawn as one. */
export const GROUP_ABOVE = 200;
export const PLAN_KEY = "plan";

/**
 * Return [{key, kind: "plan" | "node" | "group", needs: [key], state, ids, column?}].
 */
export function graphItems(run, groupAbove = GROUP_ABOVE) {
    const ids = shownIds(run);
    const plan = {
        key: PLAN_KEY,
        kind: "plan",
        needs: [],
        state: planState(run),
        ids: [],
        column: 0,
    };
    const items = ids.length > groupAbove ? groups(run, ids) : nodes(run, ids);
    return [plan, ...items];
}

function nodes(run, ids) {
    const known = new Set(ids);
    return ids.map((id) => {
        const needs = needsOf(run, id).filter((need) => known.has(need));
        return {
            key: String(id),
            kind: "node",
            needs: needs.length ? needs.map(String) : [PLAN_KEY],
            state: stateOf(run, id),
            ids: [id],
            isFallback: id === 0 && isFallback(run),
        };
    });
}

function groups(run, ids) {
    const columnOf = depths(run, ids);
    const keyOf = (id) => `${columnOf.get(id)}-${stateOf(run, id)}`;
    const found = new Map();
    for (const id of ids) {
        const column = columnOf.get(id);
        const state = stateOf(run, id);
        const key = keyOf(id);
        if (!found.has(key)) {
            found.set(key, { key, kind: "group", needs: new Set(), state, ids: [], column });
        }
        const group = found.get(key);
        group.ids.push(id);
        const needs = needsOf(run, id).filter((need) => columnOf.has(need));
        for (const need of needs) group.needs.add(keyOf(need));
        if (!needs.length) group.needs.add(PLAN_KEY);
    }
    const sorted = [...found.values()].sort((a, b) => a.column - b.column);
    return sorted.map((group) => ({ ...group, needs: [...group.needs] }));
}

/** The depth of each node: 1 without needs (the plan is at 0), else one more than its needs'. */
export function depths(run, ids) {
    const depthOf = new Map();
    for (const id of ids) {
        const below = needsOf(run, id).map((need) => depthOf.get(need) ?? 0);
        depthOf.set(id, 1 + Math.max(0, ...below));
    }
    return depthOf;
}

/**
 * Return the key that an arrow key leads to from `key`, or null: left to what is needed,
 * right to what builds on it, up and down within the column.
 */
export function neighbour(layout, key, direction) {
    const here = layout.places.get(key);
    const others = [...layout.places].filter(([other]) => other !== key);
    if (direction === "up" || direction === "down") {
        const sign = direction === "up" ? -1 : 1;
        const found = others.filter(
            ([, place]) => place.column === here.column && sign * (place.row - here.row) > 0,
        );
        return nearest(found, here);
    }
    const linked = layout.edges.filter(
        (edge) => (direction === "left" ? edge.to : edge.from) === key,
    );
    const ends = new Set(linked.map((edge) => (direction === "left" ? edge.from : edge.to)));
    return nearest(
        others.filter(([other]) => ends.has(other)),
        here,
    );
}

function nearest(found, here) {
    const far = ([, place]) =>
        Math.abs(place.row - here.row) + Math.abs(place.column - here.column);
    return found.sort((a, b) => far(a) - far(b))[0]?.[0] ?? null;
}
