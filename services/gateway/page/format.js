/** How figures and states are said. Pure. */

export const STATE_WORDS = {
    planned: "planned",
    waiting: "waiting",
    queued: "queued",
    decoding: "decoding",
    decoded: "decoded",
    retry: "trying again",
    failed: "failed",
    cancelled: "cancelled",
    skipped: "not used",
};

/** The same where there is room for six letters. */
export const SHORT_WORDS = {
    ...STATE_WORDS,
    waiting: "waits",
    retry: "retry",
    cancelled: "ended",
    skipped: "unused",
};

export const RUN_WORDS = {
    queued: "waiting for a planner",
    planning: "planning",
    decoding: "decoding",
    answered: "answered",
    drafted: "planned only",
    failed: "failed",
    cancelled: "cancelled",
    open: "running",
};

export const REASON_WORDS = {
    forced: "as asked",
    gate: "the planner chose it",
    planned: "planned",
    few_nodes: "the plan had too few points",
    chain: "the plan was nearly a chain",
    unparsable: "the plan could not be read",
    cut_off: "the plan was cut off",
    no_planner: "no planning call",
};

/** Seconds as a person says them: 0.42 s, 7.3 s, 41 s, 2 min 05 s. */
export function seconds(value) {
    if (value === null || value === undefined || Number.isNaN(value)) return "–";
    if (value < 1) return `${value.toFixed(2)} s`;
    if (value < 20) return `${value.toFixed(1)} s`;
    if (value < 119.5) return `${Math.round(value)} s`;
    const whole = Math.round(value);
    return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
}

/** Milliseconds, or seconds where there are many. */
export function milliseconds(value) {
    if (value === null || value === undefined) return "–";
    return value < 1000
        ? `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`
        : seconds(value / 1000);
}

/** A count with its noun: 1 node, 3 nodes, 1,204 tokens. */
export function plural(count, noun, nouns = `${noun}s`) {
    return `${count.toLocaleString("en")} ${count === 1 ? noun : nouns}`;
}

/** A list of ids: 1; 1 and 2; 1, 2 and 5. */
export function idList(ids) {
    return ids.length < 2 ? ids.join("") : `${ids.slice(0, -1).join(", ")} and ${ids.at(-1)}`;
}

/** What a node is called: its number, or what it is. */
export function nodeName(id) {
    if (id === null) return "Plan";
    return id === 0 ? "Answer" : String(id);
}

/** How long ago an instant was. */
export function ago(at, now) {
    const s = Math.max(0, now - at);
    if (s < 45) return "just now";
    if (s < 3000) return `${Math.max(1, Math.round(s / 60))} min ago`;
    if (s < 80_000) return `${Math.max(1, Math.round(s / 3600))} h ago`;
    return `${Math.round(s / 86_400)} d ago`;
}

/** The text without control characters, in one line. */
export function oneLine(text) {
    return text.replace(/[\u0000-\u001f\u007f-\u009f]+/g, " ").trim();
}
