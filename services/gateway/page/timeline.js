/**
 * Where the time of a request went: a bar for the plan and one for each node, and beside
 * them the same engine calls one after another.
 *
 * Pure. Seconds since the request was stored. Instants are those at which NATS stored the
 * facts, durations those that the processes measured; of what is still running, and of
 * previews, only the instants at which they were heard are known.
 */

import { answerIds, planPool, poolOf, shownIds, stateOf } from "./fold.js";

/**
 * Return [{id (null: the plan), pool, state, releasedS, startedS, firstTokenS, endedS,
 * isRunning, isCritical, failedS: [s], linesS: [s]}] in the order of the plan.
 */
export function bars(run, now) {
    const critical = new Set(run.end?.timings?.critical_path ?? []);
    const plan = planBar(run, now);
    const nodes = shownIds(run).map((id) => nodeBar(run, run.nodes.get(id), now, critical));
    return [plan, ...nodes].filter(Boolean);
}

function planBar(run, now) {
    if (run.acceptedAt === null || (run.plan && !run.plan.plan_ms)) return null;
    const endedAt = run.plan ? run.planAt : (run.endAt ?? now);
    const startedAt = run.plan ? endedAt - run.plan.plan_ms / 1000 : run.acceptedAt;
    const planned = [...run.nodes.values()].filter((node) => node.plannedAt !== null);
    return {
        id: null,
        pool: planPool(run),
        state: run.plan ? "decoded" : "decoding",
        ...since(run, run.begunAt, startedAt, startedAt, endedAt),
        isRunning: !run.plan && !run.end,
        isCritical: run.end?.type === "AnswerAssembled",
        failedS: [],
        linesS: planned.map((node) => node.plannedAt - run.begunAt),
    };
}

function nodeBar(run, node, now, critical) {
    const failedS = [...node.failures.values()].map((one) => one.at - run.begunAt);
    const times = node.decoded ? decodedTimes(run, node) : runningTimes(run, node, now);
    if (!times && !failedS.length) return null;
    return {
        id: node.id,
        pool: poolOf(run, node),
        state: stateOf(run, node.id),
        ...(times ?? since(run, run.begunAt + Math.min(...failedS))),
        isRunning: !node.decoded && !run.end && times !== null,
        isCritical: critical.has(node.id),
        failedS,
        linesS: [],
    };
}

function decodedTimes(run, node) {
    const { decode_ms, queued_ms, first_token_ms } = node.decoded;
    const endedAt = node.decodedAt;
    const startedAt = endedAt - decode_ms / 1000;
    return since(
        run,
        startedAt - queued_ms / 1000,
        startedAt,
        startedAt + first_token_ms / 1000,
        endedAt,
    );
}

function runningTimes(run, node, now) {
    const until = run.endAt ?? now;
    if (node.startedAt === null && node.releasedAt === null) return null;
    const startedAt = node.startedAt ?? until;
    const releasedAt = Math.min(node.releasedAt ?? startedAt, startedAt);
    return since(run, releasedAt, startedAt, node.firstTokenAt ?? until, until);
}

function since(
    run,
    releasedAt,
    startedAt = releasedAt,
    firstTokenAt = startedAt,
    endedAt = startedAt,
) {
    const relative = (at) => Math.max(0, at - run.begunAt);
    return {
        releasedS: relative(releasedAt),
        startedS: relative(startedAt),
        firstTokenS: Math.min(relative(firstTokenAt), relative(endedAt)),
        endedS: relative(endedAt),
    };
}

/**
 * Return the engine calls of the answer laid end to end:
 * {segments: [{id (null: the plan), pool, fromS, toS}], totalS}.
 */
export function sequence(run, found) {
    const byId = new Map(found.map((bar) => [bar.id, bar]));
    const segments = [];
    let totalS = 0;
    for (const id of [null, ...answerIds(run)]) {
        const bar = byId.get(id);
        if (!bar || bar.endedS <= bar.startedS) continue;
        const fromS = totalS;
        totalS += bar.endedS - bar.startedS;
        segments.push({ id, pool: bar.pool, fromS, toS: totalS });
    }
    return { segments, totalS };
}

/** Seconds from the stored request to its end, or to `now`. */
export function wallS(run, now) {
    if (run.end?.timings) return run.end.timings.wall_ms / 1000;
    return Math.max(0, (run.endAt ?? now) - run.begunAt);
}

/** How many times as long the engine calls would take one after another; null: not yet known. */
export function speedUp(run, now) {
    const timings = run.end?.timings;
    if (timings) return timings.wall_ms > 0 ? timings.sequential_ms / timings.wall_ms : null;
    if (run.end) return null;
    const wall = wallS(run, now);
    return wall > 0.5 ? sequence(run, bars(run, now)).totalS / wall : null;
}

/** The most bars of a pool that were between start and end at the same time. */
export function mostAtOnce(found) {
    const edges = found.flatMap((bar) => [
        [bar.startedS, 1],
        [bar.endedS, -1],
    ]);
    let open = 0;
    let most = 0;
    for (const [, step] of edges.sort((a, b) => a[0] - b[0] || a[1] - b[1])) {
        open += step;
        most = Math.max(most, open);
    }
    return most;
}

/** Return instants for an axis up to `endS`: at most `most` of them, at round distances. */
export function ticks(endS, most = 8) {
    const raw = endS / most;
    const power = 10 ** Math.floor(Math.log10(Math.max(raw, 0.001)));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= raw * 0.999);
    const count = Math.floor(endS / step + 1e-9);
    return Array.from({ length: count + 1 }, (_, index) => index * step);
}
