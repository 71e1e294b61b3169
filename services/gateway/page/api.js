/** The gateway's HTTP: calls, the key, and one kind of error. */

const KEY = "skelgraph.key";
const PASSING = new Set([408, 429, 500, 502, 503, 504]);

/**
 * A call did not succeed. `code` is the gateway's, or `unreachable`; `status` is 0 where
 * nobody answered; `isPassing`: the same call may succeed later.
 */
export class Problem extends Error {
    constructor(message, { code, status = 0, param = null, retryAfterS = null }) {
        super(message);
        this.name = "Problem";
        Object.assign(this, { code, status, param, retryAfterS });
    }

    get isPassing() {
        return this.status === 0 || PASSING.has(this.status);
    }
}

/** Speaks to the gateway that served the page; `storage` keeps the key for this tab. */
export class Api {
    constructor(storage) {
        this.storage = storage;
    }

    get key() {
        return this.storage.getItem(KEY);
    }

    set key(value) {
        if (value) this.storage.setItem(KEY, value);
        else this.storage.removeItem(KEY);
    }

    /** `fetch` with the key; throws a Problem unless the answer is a good one. */
    async fetch(path, options = {}) {
        const headers = { ...options.headers };
        if (this.key) headers.Authorization = `Bearer ${this.key}`;
        let response;
        try {
            response = await fetch(path, { ...options, headers, cache: "no-store" });
        } catch (error) {
            if (error.name === "AbortError") throw error;
            throw new Problem("The gateway cannot be reached.", { code: "unreachable" });
        }
        if (!response.ok) throw await problemOf(response);
        return response;
    }

    async json(method, path, { body, headers = {}, signal } = {}) {
        const content = body === undefined ? {} : { "Content-Type": "application/json" };
        const response = await this.fetch(path, {
            method,
            signal,
            headers: { ...content, ...headers },
            body: body === undefined ? undefined : JSON.stringify(body),
        });
        return response.json();
    }

    /** Submit; the key makes a repeated call the same request. */
    submit(request, idempotencyKey) {
        const headers = { "Idempotency-Key": idempotencyKey };
        return this.json("POST", "/v1/requests", { body: request, headers });
    }

    cancel(id) {
        return this.json("DELETE", `/v1/requests/${encodeURIComponent(id)}`);
    }

    recent(limit = 20) {
        return this.json("GET", `/v1/requests?limit=${limit}`);
    }
}

/** The path of a request's events. */
export function eventsPath(id) {
    return `/v1/requests/${encodeURIComponent(id)}/events`;
}

async function problemOf(response) {
    let error = {};
    try {
        error = (await response.json()).error ?? {};
    } catch {
        // Not the gateway's own answer: a proxy's page. Its status has to do.
    }
    const after = Number.parseFloat(response.headers.get("Retry-After"));
    return new Problem(error.message ?? `The gateway answered ${response.status}.`, {
        code: error.code ?? `http_${response.status}`,
        status: response.status,
        param: error.param ?? null,
        retryAfterS: Number.isFinite(after) ? after : null,
    });
}
