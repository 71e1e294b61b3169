/** One request as it is followed: its facts as they come, and afterwards as a replay. */

import { eventsPath } from "./api.js";
import { fold, isEnd, newRun } from "./fold.js";
import { Player } from "./replay.js";
import { follow } from "./sse.js";

/**
 * Follow a request. `onChange()` is called when there is something new to see, `onState`
 * hears of the connection, `onEnd(player)` is called once all facts are there.
 */
export class Session {
    constructor(api, id, { onChange, onState, onEnd, onProblem }) {
        this.api = api;
        this.id = id;
        this.hooks = { onChange, onState, onEnd, onProblem };
        this.live = newRun(id, Date.now() / 1000);
        this.run = this.live;
        this.facts = [];
        this.player = null;
        this.momentS = null;
        // How much this machine's clock is ahead of NATS's: at most what the freshest fact says.
        this.aheadS = null;
        this.stopping = new AbortController();
    }

    /** This moment on NATS's clock, or the moment of the replay. */
    get now() {
        if (this.momentS !== null) return this.player.begunAt + this.momentS;
        return Date.now() / 1000 - (this.aheadS ?? 0);
    }

    async start() {
        try {
            await follow(this.api, eventsPath(this.id), {
                signal: this.stopping.signal,
                onEvent: (event) => this.take(event),
                onState: this.hooks.onState,
            });
            if (!this.player) this.end();
        } catch (error) {
            if (!this.stopping.signal.aborted) this.hooks.onProblem(error);
        }
    }

    stop() {
        this.stopping.abort();
    }

    /** Fold one server-sent event; return whether it was the last. */
    take({ id, data }) {
        const event = JSON.parse(data);
        const heardAt = Date.now() / 1000;
        if (id !== null) {
            const delayS = heardAt - event.stored_at;
            this.aheadS = Math.min(this.aheadS ?? Infinity, delayS);
            this.facts.push({ at: event.stored_at, event });
        }
        fold(this.live, event, id === null ? this.now : event.stored_at);
        this.hooks.onChange();
        if (!isEnd(event)) return false;
        this.end();
        return true;
    }

    end() {
        this.player = new Player(this.id, this.facts);
        this.hooks.onState("ended");
        this.hooks.onEnd(this.player);
    }

    /** Show the request as it was so many seconds after it was stored. */
    seek(momentS) {
        const isEndOf = momentS >= this.player.lengthS;
        this.momentS = isEndOf ? null : momentS;
        this.run = isEndOf ? this.live : this.player.seek(momentS);
        this.hooks.onChange();
    }
}
