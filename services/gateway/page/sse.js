/**
 * Server-sent events over `fetch`: with an Authorization header, which `EventSource` cannot
 * send, and with its own idea of when a silent connection is a dead one.
 */

import { Problem } from "./api.js";

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;
/** The gateway sends a comment every 15 s. */
const SILENCE_MS = 40_000;

/** A parser of the wire format: feed it text in any pieces, it returns whole events. */
export function eventParser() {
    let rest = "";
    let current = { id: null, event: "message", data: [] };
    const take = (line) => {
        if (line === "") {
            const { id, event, data } = current;
            current = { id: null, event: "message", data: [] };
            return data.length ? { id, event, data: data.join("\n") } : null;
        }
        const colon = line.indexOf(":");
        const field = colon < 0 ? line : line.slice(0, colon);
        const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (field === "data") current.data.push(value);
        else if (field === "event" || field === "id") current[field] = value;
        return null;
    };
    return (text) => {
        const lines = (rest + text).split(/\r\n|\n|\r(?!$)/);
        rest = lines.pop();
        return lines.map(take).filter(Boolean);
    };
}

/**
 * Hand every event of a request to `onEvent` until it returns true for one (the end), and
 * come back after the last fact when the connection is lost.
 *
 * `onState` hears "connecting", "open", and {retryInMs, problem} while waiting.
 * Throws a Problem that asking again would not mend, and AbortError once `signal` is.
 */
export async function follow(api, path, { signal, onEvent, onState }) {
    let lastId = null;
    let pauseMs = FIRST_PAUSE_MS;
    for (;;) {
        onState("connecting");
        try {
            const heard = (event) => {
                lastId = event.id ?? lastId;
                pauseMs = FIRST_PAUSE_MS;
                return onEvent(event);
            };
            if (await readOnce(api, path, lastId, signal, heard, onState)) return;
        } catch (error) {
            if (signal.aborted || (error instanceof Problem && !error.isPassing)) throw error;
            onState({ retryInMs: pauseMs, problem: error });
        }
        await pause(pauseMs, signal);
        pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS);
    }
}

async function readOnce(api, path, lastId, signal, onEvent, onState) {
    const attempt = new AbortController();
    const giveUp = () => attempt.abort(signal.reason);
    signal.addEventListener("abort", giveUp, { once: true });
    let watchdog = setTimeout(giveUp, SILENCE_MS);
    const stirred = () => {
        clearTimeout(watchdog);
        watchdog = setTimeout(giveUp, SILENCE_MS);
    };
    try {
        const headers = { Accept: "text/event-stream" };
        if (lastId !== null) headers["Last-Event-ID"] = lastId;
        const response = await api.fetch(path, { headers, signal: attempt.signal });
        if (response.status === 204) return true;
        onState("open");
        return await readAll(response.body, stirred, onEvent);
    } finally {
        clearTimeout(watchdog);
        signal.removeEventListener("abort", giveUp);
        attempt.abort();
    }
}

async function readAll(body, stirred, onEvent) {
    const parse = eventParser();
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
        const { value, done } = await reader.read();
        if (done) return false;
        stirred();
        for (const event of parse(value)) if (onEvent(event)) return true;
    }
}

function pause(ms, signal) {
    return new Promise((resolve, reject) => {
        const stop = () => {
            clearTimeout(timer);
            reject(signal.reason);
        };
        const timer = setTimeout(() => {
            signal.removeEventListener("abort", stop);
            resolve();
        }, ms);
        signal.addEventListener("abort", stop, { once: true });
    });
}
