/** One request: its head and figures, the graph, the timeline, the answer, the replay. */

import { answerView } from "./answer_view.js";
import { showProblem } from "./ask_view.js";
import { byId, h, icon, refresh, setText } from "./dom.js";
import {
    answerIds,
    answerParts,
    planState,
    runState,
    shownIds,
    stateOf,
    tokensOf,
} from "./fold.js";
import { REASON_WORDS, RUN_WORDS, milliseconds, plural, seconds } from "./format.js";
import { graphView } from "./graph_view.js";
import { listView } from "./list_view.js";
import { nodeDialog } from "./node_dialog.js";
import { speedUp, wallS } from "./timeline.js";
import { timelineView } from "./timeline_view.js";

const SIGNS = {
    queued: "queued",
    planning: "decoding",
    decoding: "decoding",
    answered: "decoded",
    drafted: "decoded",
    failed: "failed",
    cancelled: "cancelled",
};
const LONG_TITLE = 240;

/** Make the view; `onCancel()` and `onAgain()` do what their buttons say. */
export function runView({ onCancel, onAgain }) {
    let run = null;
    const open = (item) => item && dialog.open(item, run);
    const openId = (id) =>
        open(id === null ? { kind: "plan", ids: [] } : { kind: "node", ids: [id] });
    const dialog = nodeDialog(open);
    const graph = graphView(byId("graph"), byId("graph-legend"), open);
    const list = listView(byId("list"), openId);
    const timeline = timelineView(byId("timeline"), byId("timeline-legend"), openId);
    const answer = answerView(byId("answer"), byId("answer-note"), openId);
    const title = byId("run-title");
    const more = byId("run-title-more");

    byId("cancel-button").addEventListener("click", onCancel);
    byId("again-button").addEventListener("click", onAgain);
    byId("link-button").addEventListener("click", (event) =>
        copy(event.currentTarget, location.href),
    );
    byId("copy-button").addEventListener("click", (event) =>
        copy(event.currentTarget, answerText(run)),
    );
    byId("as-graph").addEventListener("click", () => showAs("graph"));
    byId("as-list").addEventListener("click", () => showAs("list"));
    more.addEventListener("click", () => {
        const isOpen = title.classList.toggle("open");
        more.setAttribute("aria-expanded", isOpen);
        setText(more, isOpen ? "Show less" : "Show all");
    });

    function showAs(kind) {
        byId("graph").hidden = kind !== "graph";
        byId("list").hidden = kind !== "list";
        byId("as-graph").setAttribute("aria-pressed", kind === "graph");
        byId("as-list").setAttribute("aria-pressed", kind === "list");
        if (run) (kind === "graph" ? graph : list).update(run);
    }

    function paintHead(now, isOver) {
        const question = run.submitted?.question ?? "…";
        setText(title, question);
        more.hidden = question.length < LONG_TITLE;
        const state = runState(run);
        refresh(byId("run-chips"), chipSignature(run, state), () => chips(run, state));
        byId("cancel-button").hidden = isOver;
        byId("again-button").hidden =
            !isOver || !run.submitted || Boolean(run.submitted.context?.length);
        byId("copy-button").hidden = run.end?.type !== "AnswerAssembled";
        const figures = figuresOf(run, now);
        refresh(byId("figures"), JSON.stringify(figures), () => figures.map(figure));
        paintEnd(run);
    }

    return {
        /** Show `shown` as it is at `now`; `isOver`: the request has ended, though not yet then. */
        update(shown, now, isOver) {
            run = shown;
            paintHead(now, isOver);
            graph.update(run);
            if (!byId("list").hidden) list.update(run);
            timeline.update(run, now);
            answer.update(run);
            dialog.update(run);
        },
        begin() {
            title.classList.remove("open");
            byId("run-problem").hidden = true;
            byId("cancel-button").disabled = false;
            dialog.close();
        },
        fail(problem, again) {
            showProblem(byId("run-problem"), problem, again);
        },
    };
}

function chipSignature(run, state) {
    return [
        state,
        run.submitted?.context?.length,
        run.submitted?.mode,
        run.plan?.mode,
        run.plan?.reason,
        run.submitted?.adaptive,
    ].join("|");
}

function chips(run, state) {
    const mode = run.plan?.mode ?? run.submitted?.mode;
    const reason =
        run.plan && run.plan.reason !== "planned" && run.plan.reason !== "forced"
            ? `: ${REASON_WORDS[run.plan.reason]}`
            : "";
    return [
        h(
            "span",
            { className: "chip toned", dataset: { state } },
            icon(SIGNS[state]),
            RUN_WORDS[state],
        ),
        mode ? h("span", { className: "chip" }, `mode ${mode}${reason}`) : null,
        run.submitted?.context?.length
            ? h(
                  "span",
                  { className: "chip" },
                  `after ${plural(run.submitted.context.length, "turn")}`,
              )
            : null,
        run.submitted && !run.submitted.adaptive && mode === "sgd"
            ? h("span", { className: "chip" }, "large pool only")
            : null,
    ];
}

function figuresOf(run, now) {
    const timings = run.end?.timings;
    const parts = answerIds(run).filter((id) => run.nodes.has(id));
    const done = parts.filter((id) => stateOf(run, id) === "decoded").length;
    const gain = speedUp(run, now);
    const rows = [
        [run.end ? "wall time" : "so far", seconds(wallS(run, now))],
        run.plan && !run.submitted?.dry_run
            ? ["nodes decoded", `${done} of ${parts.length}`]
            : ["nodes planned", shownIds(run).length.toLocaleString("en")],
        ["tokens", tokensOf(run).toLocaleString("en")],
        gain !== null && parts.length > 1
            ? ["against one by one", `${gain.toFixed(1)}×`, "lead-figure"]
            : null,
        run.plan?.plan_ms ? ["planning", milliseconds(run.plan.plan_ms)] : null,
        timings ? ["outside of engines", milliseconds(timings.overhead_ms)] : null,
    ];
    return rows.filter(Boolean);
}

function figure([name, value, className = ""]) {
    return h("div", { className }, h("dt", {}, name), h("dd", {}, value));
}

function paintEnd(run) {
    const element = byId("run-problem");
    if (run.end?.type !== "RequestFailed") {
        if (element.dataset.ended) {
            element.hidden = true;
            delete element.dataset.ended;
        }
        return;
    }
    const { error } = run.end;
    if (element.dataset.ended === error.code && !element.hidden) return;
    element.dataset.ended = error.code;
    element.classList.toggle("notice", error.code === "cancelled");
    const also = error.retryable ? " Asking again may help." : "";
    element.replaceChildren(h("p", {}, `${error.message}${also} `, h("code", {}, error.code)));
    element.hidden = false;
}

function answerText(run) {
    return (
        run.end?.text ??
        answerParts(run)
            .map((part) => part.text)
            .join("\n\n")
    );
}

async function copy(button, text) {
    const before = button.textContent;
    try {
        await navigator.clipboard.writeText(text);
        setText(button, "Copied");
    } catch {
        setText(button, "Not allowed here");
    }
    setTimeout(() => setText(button, before), 1600);
}

/** What a screen reader is told of a request as it goes on. */
export function spokenState(run) {
    const state = runState(run);
    if (state === "answered") return `Answered in ${seconds(wallS(run, run.endAt))}.`;
    if (run.end?.error) return `${RUN_WORDS[state]}: ${run.end.error.message}`;
    if (run.end) return "The plan is ready.";
    if (planState(run) !== "decoded") return RUN_WORDS[state];
    const parts = answerIds(run);
    const done = parts.filter((id) => run.nodes.has(id) && stateOf(run, id) === "decoded").length;
    return `${done} of ${plural(parts.length, "node")} decoded.`;
}
