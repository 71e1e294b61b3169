/** What was asked lately: as the gateway knows it, or else as this browser remembers it. */

const NAME = "skelgraph.recent";
const KEPT = 20;

/** Keep a request in mind that this browser has asked. */
export function remember(id, request) {
    const item = {
        id,
        question: request.question.slice(0, 200),
        asked_mode: request.mode,
        submitted_at: Date.now() / 1000,
    };
    const others = remembered().filter((one) => one.id !== id);
    localStorage.setItem(NAME, JSON.stringify([item, ...others].slice(0, KEPT)));
}

/** Forget what was asked: whoever comes next has no key. */
export function forgetAll() {
    localStorage.removeItem(NAME);
}

function remembered() {
    try {
        return JSON.parse(localStorage.getItem(NAME)) ?? [];
    } catch {
        return []; // Somebody else wrote there: it is a memory aid, no more.
    }
}

/** Return {items, note}; `wantKey()` is called when the gateway asks for a key. */
export async function recentOf(api, wantKey) {
    try {
        const { data } = await api.recent(KEPT);
        return { items: data, note: data.length ? "" : "Nothing was asked in the last hour." };
    } catch (problem) {
        if (problem.status === 401 && !api.key && (await wantKey())) return recentOf(api, wantKey);
        if (problem.status === 401) return { items: [], note: problem.message };
        const items = remembered();
        const note = `${problem.message} ${items.length ? "This is what this browser remembers." : ""}`;
        return { items, note };
    }
}
