/**
 * The graph of one request as a person watches it: a fold of facts and previews.
 *
 * Pure: no clock, no DOM. What a node is doing is derived from all that is known of it, so
 * that the order in which previews and facts arrive does not matter. It says the same as
 * skelgraph/view.py does in the terminal. Instants are seconds since the epoch.
 */

/** Node id of the one node that answers the whole question. */
export const DIRECT_NODE = 0;

const END_TYPES = new Set(["AnswerAssembled", "SkeletonDrafted", "RequestFailed"]);

/** Whether `event` is the last fact of a request. */
export function isEnd(event) {
    return END_TYPES.has(event.type);
}

/** Return what is known of a request before anything was heard of it. */
export function newRun(id, begunAt) {
    return {
        id,
        begunAt,
        submitted: null,
        acceptedAt: null,
        deadlineAt: null,
        plan: null,
        planAt: null,
        end: null,
        endAt: null,
        nodes: new Map(),
    };
}

/** Take `event` in, which was stored or heard at `at`. */
export function fold(run, event, at) {
    switch (event.type) {
        case "RequestAccepted":
            run.submitted = event.submitted;
            run.begunAt = event.submitted_at;
            run.deadlineAt = event.deadline_at;
            run.acceptedAt = at;
            break;
        case "NodePlanned":
            Object.assign(nodeOf(run, event.node.id), {
                spec: event.node,
                line: event.line,
                plannedAt: at,
                plannedMs: event.planned_ms,
            });
            break;
        case "PlanCompleted":
            run.plan = event;
            run.planAt = at;
            break;
        case "NodeDecoded":
            Object.assign(nodeOf(run, event.node), { decoded: event, decodedAt: at });
            break;
        case "NodeFailed":
            foldFailure(nodeOf(run, event.node), event, at);
            break;
        default:
            if (isEnd(event)) {
                run.end = event;
                run.endAt = at;
            } else if (PREVIEWS[event.type]) {
                foldPreview(nodeOf(run, event.node), event, at);
            }
    }
}

function nodeOf(run, id) {
    let node = run.nodes.get(id);
    if (!node) {
        node = {
            id,
            spec: null,
            line: "",
            plannedAt: null,
            plannedMs: null,
            attempt: 1,
            decoded: null,
            decodedAt: null,
            failures: new Map(),
            ...blankAttempt(),
        };
        run.nodes.set(id, node);
    }
    return node;
}

function blankAttempt() {
    return {
        releasedAt: null,
        startedAt: null,
        firstTokenAt: null,
        pool: null,
        worker: "",
        endpoint: "",
        tokens: 0,
        partial: newPartial(),
    };
}

function begin(node, attempt) {
    Object.assign(node, blankAttempt(), { attempt });
}

function foldFailure(node, event, at) {
    if (!node.failures.has(event.attempt)) node.failures.set(event.attempt, { fact: event, at });
    if (node.attempt <= event.attempt) begin(node, event.attempt + 1);
}

const PREVIEWS = {
    NodeReleased(node, event, at) {
        node.releasedAt = at;
        node.pool = event.pool;
    },
    NodeStarted(node, event, at) {
        const { releasedAt } = node;
        begin(node, event.attempt);
        const { pool, worker, endpoint } = event;
        Object.assign(node, { releasedAt, startedAt: at, pool, worker, endpoint });
    },
    TokensDecoded(node, event, at) {
        node.startedAt ??= at;
        node.firstTokenAt ??= at;
        node.tokens = Math.max(node.tokens, event.tokens);
        addPiece(node.partial, event.offset, event.text);
    },
    NodeReset(node, event) {
        begin(node, event.attempt + 1);
    },
};

function foldPreview(node, event, at) {
    if (event.attempt < node.attempt) return;
    if (event.attempt > node.attempt) begin(node, event.attempt);
    PREVIEWS[event.type](node, event, at);
}

// --- the text of a node, as far as previews tell it ---------------------------------------

/** Pieces of a text in any order; offsets count code points, as the contract does. */
export function newPartial() {
    return { text: "", length: 0, later: new Map() };
}

/** Take a piece in; what is known already is skipped. */
export function addPiece(partial, offset, text) {
    const known = partial.later.get(offset) ?? "";
    partial.later.set(offset, text.length > known.length ? text : known);
    for (const start of [...partial.later.keys()].sort((a, b) => a - b)) {
        if (start > partial.length) return;
        const points = Array.from(partial.later.get(start)).slice(partial.length - start);
        partial.later.delete(start);
        partial.text += points.join("");
        partial.length += points.length;
    }
}

/** The text so far; where its beginning was missed, an ellipsis and what came last. */
export function partialText(partial) {
    const starts = [...partial.later.keys()].sort((a, b) => a - b);
    const heard = starts.map((start) => partial.later.get(start)).join("");
    return heard ? `${partial.text} … ${heard}` : partial.text;
}

// --- what follows ------------------------------------------------------------------------

/** The nodes that are to be shown, by id; a preview may be faster than the node's plan. */
export function shownIds(run) {
    const shown = [...run.nodes.values()].filter((node) => node.spec || node.id === DIRECT_NODE);
    return shown.map((node) => node.id).sort((a, b) => a - b);
}

/** The nodes that a node needs and that are not decoded. */
export function waitsFor(run, id) {
    return needsOf(run, id).filter((need) => !run.nodes.get(need)?.decoded);
}

/** The ids of the nodes that a node builds on. */
export function needsOf(run, id) {
    return run.nodes.get(id)?.spec?.needs ?? [];
}

/**
 * The pool of a node that was released, or null. A preview that was missed would have told it;
 * until the node's fact does, the rule by which nodes are released has to do.
 */
export function poolOf(run, node) {
    const known = node.decoded?.pool ?? node.pool ?? lastFailure(node)?.fact.pool;
    if (known || (node.startedAt === null && node.releasedAt === null)) return known ?? null;
    const isSgd = (run.plan?.mode ?? run.submitted?.mode) === "sgd";
    return isSgd && run.submitted?.adaptive && node.spec?.difficulty === "easy" ? "small" : "large";
}

/** The pool whose model writes the plan, or most of it. */
export function planPool(run) {
    const author = run.plan?.written_by ?? run.submitted?.planner_pool ?? "large";
    return author === "large" ? "large" : "small";
}

/** The failure of the last failed attempt, if there is one. */
export function lastFailure(node) {
    const attempts = [...node.failures.keys()];
    return attempts.length ? node.failures.get(Math.max(...attempts)) : null;
}

/**
 * What a node is doing: planned, waiting, queued, decoding, decoded, retry, failed,
 * cancelled or skipped (not part of the answer).
 */
export function stateOf(run, id) {
    const node = run.nodes.get(id);
    if (isUnused(run, node)) return "skipped";
    if (node.decoded) return "decoded";
    if (run.end && run.end.type !== "SkeletonDrafted") return stateAtEnd(run, node);
    if (
        node.failures.size &&
        ![...node.failures.values()].every((one) => one.fact.error.retryable)
    ) {
        return "failed";
    }
    if (node.startedAt !== null) return "decoding";
    if (node.failures.size) return "retry";
    return stateBefore(run, node);
}

function isUnused(run, node) {
    if (run.end?.type === "AnswerAssembled") {
        return !run.end.nodes.some((one) => one.node.id === node.id) && !node.failures.size;
    }
    return run.plan !== null && node.id !== DIRECT_NODE && !run.plan.nodes.includes(node.id);
}

function stateAtEnd(run, node) {
    if (node.failures.size && node.startedAt === null) return "failed";
    return run.end.type === "AnswerAssembled" ? "skipped" : "cancelled";
}

function stateBefore(run, node) {
    const missing = waitsFor(run, node.id);
    const lost = (need) =>
        run.nodes.has(need) && ["failed", "skipped"].includes(stateOf(run, need));
    if (missing.some(lost)) return "skipped";
    if (node.releasedAt !== null) return "queued";
    if (run.submitted?.dry_run || run.end) return "planned";
    return missing.length ? "waiting" : "queued";
}

/** What the plan is doing: queued (for a planner), decoding, decoded or cancelled. */
export function planState(run) {
    if (run.plan) return "decoded";
    if (run.end) return "cancelled";
    return run.acceptedAt === null ? "queued" : "decoding";
}

/** What the request is doing: queued, planning, decoding, answered, drafted, failed, cancelled. */
export function runState(run) {
    if (run.end?.type === "AnswerAssembled") return "answered";
    if (run.end?.type === "SkeletonDrafted") return "drafted";
    if (run.end) return run.end.error.code === "cancelled" ? "cancelled" : "failed";
    if (run.acceptedAt === null) return "queued";
    return run.plan ? "decoding" : "planning";
}

/** How many tokens have been generated so far, the plan's included. */
export function tokensOf(run) {
    let total = run.plan?.usage.generated_tokens ?? 0;
    for (const node of run.nodes.values()) {
        total += node.decoded ? node.decoded.usage.generated_tokens : node.tokens;
    }
    return total;
}

/** The sequence of the nodes that make up the answer, as far as it is known now. */
export function answerIds(run) {
    if (run.end?.type === "AnswerAssembled") return run.end.nodes.map((one) => one.node.id);
    if (isFallback(run)) return [DIRECT_NODE];
    const failed = run.end?.type === "RequestFailed";
    const planned = run.plan ? [...run.plan.nodes] : shownIds(run);
    return failed ? planned.filter((id) => run.nodes.has(id)) : planned;
}

/** Whether the request is being, or was, answered directly because a node failed. */
export function isFallback(run) {
    if (run.end?.type === "AnswerAssembled") return run.end.fallback;
    const direct = run.nodes.get(DIRECT_NODE);
    return Boolean(direct && run.plan && !run.plan.nodes.includes(DIRECT_NODE));
}

/** The text of a part as the answer has it, where that may differ from what was decoded. */
function textInAnswer(run, id) {
    if (!run.end?.joints?.length) return null;
    const place = run.end.nodes.find((one) => one.node.id === id);
    return place ? Array.from(run.end.text).slice(place.start, place.end).join("") : null;
}

/**
 * The answer's parts in plan order: `ordered` is text whose predecessors are all there, or
 * that waits for nothing any more, `ahead` is text that came before its turn, `empty` is a
 * part of which nothing is there.
 */
export function answerParts(run) {
    let inOrder = true;
    return answerIds(run).map((id) => {
        const node = run.nodes.get(id);
        const text =
            textInAnswer(run, id) ??
            node?.decoded?.text ??
            (node ? partialText(node.partial) : "");
        const isWhole = Boolean(node?.decoded);
        const isOrdered = inOrder || (isWhole && run.end !== null);
        const phase = text === "" ? "empty" : isOrdered ? "ordered" : "ahead";
        inOrder = inOrder && isWhole;
        return { id, text, isWhole, phase };
    });
}
