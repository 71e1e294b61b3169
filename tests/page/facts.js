// Facts for tests: one request's, told as short as a test can read them.

export const REQUEST = "r1";
const about = { request: REQUEST };
const usage = { prompt_tokens: 10, cached_tokens: 0, generated_tokens: 5 };

export function accepted(asked = {}) {
    const submitted = { question: "Why?", mode: "auto", adaptive: true, dry_run: false, ...asked };
    return { type: "RequestAccepted", ...about, submitted, submitted_at: 1000, deadline_at: 1600 };
}

export function planned(id, needs = [], difficulty = "hard") {
    const node = { id, summary: `point ${id}`, needs, difficulty };
    return { type: "NodePlanned", ...about, node, line: `${id}. point ${id}`, planned_ms: 100 };
}

export function plan(nodes, more = {}) {
    const fact = { mode: "sgd", reason: "planned", nodes, model: "m", endpoint: "", plan_ms: 500 };
    return { type: "PlanCompleted", ...about, ...fact, usage, ...more };
}

export function decoded(node, more = {}) {
    const times = { queued_ms: 100, slot_wait_ms: 0, first_token_ms: 200, decode_ms: 1000 };
    const where = { pool: "large", model: "m", endpoint: "http://e", worker: "w" };
    const rest = { attempt: 1, text: `Text ${node}.`, finish_reason: "stop", usage };
    return { type: "NodeDecoded", ...about, node, ...where, ...times, ...rest, ...more };
}

export function failed(node, attempt = 1, retryable = true) {
    const error = { code: "engine_failed", message: "The engine failed.", retryable };
    return {
        type: "NodeFailed",
        ...about,
        node,
        attempt,
        pool: "small",
        endpoint: "",
        worker: "w",
        error,
    };
}

export function answered(nodes, more = {}) {
    const reports = nodes.map((id) => ({
        node: { id, summary: "", needs: [], difficulty: "hard" },
    }));
    const timings = {
        wall_ms: 4000,
        sequential_ms: 6000,
        critical_path: nodes.slice(-1),
        overhead_ms: 3,
    };
    return {
        type: "AnswerAssembled",
        ...about,
        text: "",
        nodes: reports,
        timings,
        fallback: false,
        ...more,
    };
}

export function ended(code = "cancelled") {
    return {
        type: "RequestFailed",
        ...about,
        error: { code, message: "It ended.", retryable: false },
        partial: [],
    };
}

export const released = (node, attempt = 1) => ({
    type: "NodeReleased",
    node,
    attempt,
    pool: "small",
});
export const started = (node, attempt = 1) => ({
    type: "NodeStarted",
    node,
    attempt,
    pool: "small",
    worker: "w",
    endpoint: "",
});
export const reset = (node, attempt = 1) => ({ type: "NodeReset", node, attempt });
export const tokens = (node, offset, text, count = 1, attempt = 1) => ({
    type: "TokensDecoded",
    node,
    attempt,
    offset,
    text,
    tokens: count,
});
