/** What is known of one node, as a person reads it. Pure. */

import { needsOf, poolOf, shownIds, stateOf, waitsFor } from "./fold.js";
import { STATE_WORDS, milliseconds, plural } from "./format.js";

/** Tokens that a node has generated so far. */
export function tokensOfNode(node) {
    return node.decoded ? node.decoded.usage.generated_tokens : node.tokens;
}

/** The rows of the table that says what the graph shows. */
export function listRows(run) {
    return shownIds(run).map((id) => {
        const node = run.nodes.get(id);
        const { decoded } = node;
        const state = stateOf(run, id);
        const waits = waitsFor(run, id);
        return {
            id,
            summary: node.spec?.summary || "the whole answer",
            state,
            words: state === "waiting" ? `waiting for ${waits.join(", ")}` : STATE_WORDS[state],
            needs: needsOf(run, id).join(", ") || "–",
            pool: poolOf(run, node) ?? "–",
            attempt: decoded?.attempt ?? node.attempt,
            queued: decoded ? milliseconds(decoded.queued_ms) : "–",
            first: decoded ? milliseconds(decoded.first_token_ms) : "–",
            decode: decoded ? milliseconds(decoded.decode_ms) : "–",
            tokens: tokensOfNode(node) || "–",
        };
    });
}

/** Name and value of all that a node's fact tells, for its panel. */
export function factRows(run, id) {
    const node = run.nodes.get(id);
    const { decoded, spec } = node;
    const rows = [
        ["Pool", poolOf(run, node)],
        [
            "Difficulty",
            spec &&
                `${spec.difficulty}${spec.difficulty === "easy" ? " (the small pool may take it)" : ""}`,
        ],
        ["Length asked for", spec?.budget_tokens && `about ${spec.budget_tokens} tokens`],
        ["Model", decoded?.model],
        ["Engine", decoded?.endpoint ?? node.endpoint],
        ["Worker", decoded?.worker ?? node.worker],
        ["Attempt", decoded?.attempt ?? node.attempt],
    ];
    if (!decoded) rows.push(["Tokens so far", node.tokens || ""]);
    return [...rows, ...(decoded ? decodedRows(decoded) : [])].filter(([, value]) => value);
}

function decodedRows({ queued_ms, slot_wait_ms, first_token_ms, decode_ms, usage, finish_reason }) {
    const perSecond = (usage.generated_tokens * 1000) / Math.max(1, decode_ms - first_token_ms);
    const queue =
        slot_wait_ms > 0 ? `, of which ${milliseconds(slot_wait_ms)} for a free slot` : "";
    const cached = usage.cached_tokens ? `, of which ${usage.cached_tokens} cached` : "";
    return [
        ["Queued", `${milliseconds(queued_ms)}${queue}`],
        ["First token", `${milliseconds(first_token_ms)} after the call`],
        ["Engine call", `${milliseconds(decode_ms)}, first token included`],
        ["Prompt", `${plural(usage.prompt_tokens, "token")}${cached}`],
        ["Text", `${plural(usage.generated_tokens, "token")}, ${perSecond.toFixed(1)} a second`],
        ["Ended by", finish_reason === "length" ? "the limit of tokens" : "the model"],
    ];
}

/** Name and value of all that the plan's fact tells. */
export function planRows(run, reasonWords) {
    const { plan } = run;
    if (!plan) return [];
    return [
        ["Mode", `${plan.mode} (${reasonWords[plan.reason] ?? plan.reason})`],
        ["Model", plan.model],
        ["Engine", plan.endpoint],
        ["Time", plan.plan_ms ? milliseconds(plan.plan_ms) : "the engine was not asked"],
        ["Prompt", plural(plan.usage.prompt_tokens, "token")],
        ["Text", plural(plan.usage.generated_tokens, "token")],
    ].filter(([, value]) => value);
}

/** The plan's lines that were there when a node was released, as its prompt shows them. */
export function linesFor(run, id) {
    const node = run.nodes.get(id);
    const releasedAt = node.decoded
        ? node.decodedAt - (node.decoded.decode_ms + node.decoded.queued_ms) / 1000
        : (node.releasedAt ?? node.startedAt ?? Infinity);
    const planned = [...run.nodes.values()].filter((one) => one.line);
    const early = planned.filter((one) => one.plannedAt <= releasedAt + 0.05 || one.id === id);
    return early.sort((a, b) => a.id - b.id).map((one) => one.line);
}
