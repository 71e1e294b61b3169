/** The page: which view is shown, and what its parts say to each other. */

import { Api, Problem } from "./api.js";
import { askView } from "./ask_view.js";
import { announcer, byId, setText } from "./dom.js";
import { askForKey, initKey } from "./key_dialog.js";
import { playerView } from "./player_view.js";
import { recentOf, remember } from "./recent.js";
import { runView, spokenState } from "./run_view.js";
import { Session } from "./session.js";
import { initTheme } from "./theme.js";

const TICK_MS = 200;
const CALM_TICK_MS = 1000;
const ROUTE = /^#\/r\/((?:@[a-z0-9][a-z0-9_-]{0,31}\.)?[A-Za-z0-9_-]{1,64})$/;

const api = new Api(sessionStorage);
const say = announcer(byId("live"));
const run = runView({ onCancel: cancel, onAgain: again });
const player = playerView((momentS) => session?.seek(momentS));
const ask = askView(submit, () => recentOf(api, () => wantKey()));
let session = null;
let isDirty = false;
let isFramed = false;
let spoken = "";
let wantedKey = null;
/** What was sent without an answer: sent again, it is the same request. */
let unsent = {};

// --- routes -------------------------------------------------------------------------------

function route() {
    const id = ROUTE.exec(location.hash)?.[1];
    leave();
    byId("ask-view").hidden = Boolean(id);
    byId("run-view").hidden = !id;
    byId("new-link").hidden = !id;
    if (id) watch(id);
    else {
        document.title = "Skelgraph";
        ask.show();
    }
}

function leave() {
    session?.stop();
    session = null;
    ask.hide();
    player.withdraw();
    showLink("idle");
}

function watch(id) {
    spoken = "";
    run.begin();
    session = new Session(api, id, {
        onChange: changed,
        onState: showLink,
        onEnd: (played) => {
            if (played.lengthS > 0) player.offer(played.lengthS);
        },
        onProblem: (problem) => failed(id, problem),
    });
    session.start();
    changed();
    byId("run-title").focus({ preventScroll: true });
    scrollTo(0, 0);
}

async function failed(id, problem) {
    showLink("idle");
    if (problem.status === 401 && (await wantKey(problem))) return watchAgain(id);
    const known =
        problem instanceof Problem
            ? problem
            : new Problem(String(problem), { code: "page_failed" });
    run.fail(known, () => watchAgain(id));
    return undefined;
}

function watchAgain(id) {
    if (session?.id === id) route();
}

// --- what a person does ---------------------------------------------------------------------

async function submit(request) {
    const body = JSON.stringify(request);
    if (body !== unsent.body) unsent = { body, key: newKey() };
    const { id } = await withKey(() => api.submit(request, unsent.key));
    unsent = {};
    remember(id, request);
    location.hash = `#/r/${id}`;
}

/** Outside of secure contexts there is no `randomUUID`. */
function newKey() {
    return crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;
}

async function cancel() {
    byId("cancel-button").disabled = true;
    try {
        await withKey(() => api.cancel(session.id));
    } catch (problem) {
        run.fail(problem, cancel);
        byId("cancel-button").disabled = false;
    }
}

function again() {
    ask.fill(session.run.submitted);
    location.hash = "#/";
}

/** Call, and once more with a key when one is asked for. */
async function withKey(call) {
    try {
        return await call();
    } catch (problem) {
        if (problem.status !== 401 || !(await wantKey(problem))) throw problem;
        return call();
    }
}

/** Ask for a key, once for all that want one; returns whether there is a new one. */
function wantKey(problem = null) {
    wantedKey ??= askForKey(api, problem).finally(() => (wantedKey = null));
    return wantedKey;
}

// --- what is shown ----------------------------------------------------------------------------

function changed() {
    isDirty = true;
    if (isFramed || !session) return;
    isFramed = true;
    requestAnimationFrame(() => {
        isFramed = false;
        paint();
    });
}

function paint() {
    if (!session || !isDirty) return;
    isDirty = false;
    run.update(session.run, session.now, session.player !== null);
    document.title = titleOf(session.live);
    const words = spokenState(session.run);
    if (words !== spoken && session.momentS === null) say(words);
    spoken = words;
}

function titleOf({ submitted, end }) {
    if (!submitted) return "Skelgraph";
    const sign = end ? (end.error ? "✕ " : "✓ ") : "";
    return `${sign}${submitted.question.slice(0, 60)} · Skelgraph`;
}

function showLink(state) {
    const element = byId("link-state");
    const isLost = typeof state === "object";
    const words = { connecting: "connecting…", open: "live", ended: "", idle: "" };
    element.dataset.state = isLost ? "lost" : state;
    if (isLost)
        setText(
            element,
            `${state.problem?.code === "busy" ? "busy" : "connection lost"}, trying again…`,
        );
    else setText(element, words[state]);
}

const calm = matchMedia("(prefers-reduced-motion: reduce)");
(function beat() {
    const isLive = session && !session.run.end && session.momentS === null;
    if (isLive && !document.hidden) changed();
    setTimeout(beat, calm.matches ? CALM_TICK_MS : TICK_MS);
})();

initTheme(byId("theme-button"));
initKey(api);
addEventListener("hashchange", route);
addEventListener("resize", changed);
route();
