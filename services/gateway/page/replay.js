/**
 * A finished request played again from its facts.
 *
 * Pure: the view's clock says which moment is to be seen. Previews are not stored, so those
 * between a node's release and its end are made up from what its fact tells: the instants
 * are exact, the pace of the text between first token and end is taken as even.
 */

import { fold, newRun } from "./fold.js";

/** So many pieces of text are shown of a node at most. */
const PIECES = 80;

/** Return [{at, event}] of a request in order of time, made of its facts ([{at, event}]). */
export function script(facts) {
    const told = facts.flatMap(({ at, event }) =>
        event.type === "NodeDecoded" ? [...previews(event, at), { at, event }] : [{ at, event }],
    );
    const order = new Map(told.map((one, index) => [one, index]));
    return told.sort((a, b) => a.at - b.at || order.get(a) - order.get(b));
}

function previews(decoded, at) {
    const { request, node, attempt, pool, worker, endpoint } = decoded;
    const startedAt = at - decoded.decode_ms / 1000;
    const firstAt = Math.min(at, startedAt + decoded.first_token_ms / 1000);
    const about = { request, node, attempt, pool };
    return [
        { at: startedAt - decoded.queued_ms / 1000, event: { ...about, type: "NodeReleased" } },
        { at: startedAt, event: { ...about, type: "NodeStarted", worker, endpoint } },
        ...pieces(decoded.text).map(({ offset, text, share }) => ({
            at: firstAt + (at - firstAt) * share,
            event: {
                type: "TokensDecoded",
                request,
                node,
                attempt,
                offset,
                text,
                tokens: Math.round(decoded.usage.generated_tokens * share),
            },
        })),
    ];
}

function pieces(text) {
    const words = text.match(/\s*\S+|\s+$/gu) ?? [];
    const size = Math.max(1, Math.ceil(words.length / PIECES));
    const found = [];
    let offset = 0;
    for (let index = 0; index < words.length; index += size) {
        const piece = words.slice(index, index + size).join("");
        found.push({ offset, text: piece, share: index / words.length });
        offset += Array.from(piece).length;
    }
    return found;
}

/** Shows a request at any moment; forwards it only folds what is new. */
export class Player {
    constructor(id, facts) {
        this.id = id;
        this.script = script(facts);
        const accepted = facts.find((one) => one.event.type === "RequestAccepted");
        this.submitted = accepted?.event.submitted ?? null;
        this.begunAt = accepted?.event.submitted_at ?? this.script[0]?.at ?? 0;
        this.endAt = this.script.at(-1)?.at ?? this.begunAt;
        this.rewind();
    }

    get lengthS() {
        return this.endAt - this.begunAt;
    }

    rewind() {
        this.run = newRun(this.id, this.begunAt);
        this.run.submitted = this.submitted; // what was asked is known to whoever plays it again
        this.cursor = 0;
        this.atS = 0;
    }

    /** Return the request as it was `atS` seconds after it was stored. */
    seek(atS) {
        if (atS < this.atS) this.rewind();
        this.atS = Math.max(0, Math.min(atS, this.lengthS));
        const until = atS >= this.lengthS ? Infinity : this.begunAt + this.atS;
        while (this.cursor < this.script.length && this.script[this.cursor].at <= until) {
            const { at, event } = this.script[this.cursor++];
            fold(this.run, event, at);
        }
        return this.run;
    }
}
