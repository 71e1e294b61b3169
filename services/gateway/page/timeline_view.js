/** The timeline: bars by pool, and below them, on an axis of its own, the same calls in sequence. */

import { h, keyed, refresh, setText } from "./dom.js";
import { nodeName, oneLine, plural, seconds } from "./format.js";
import { bars, mostAtOnce, sequence, speedUp, ticks, wallS } from "./timeline.js";

/** Above so many bars those of the pools are summed up. */
const MOST_ROWS = 80;
const POOLS = ["large", "small"];

const HOW =
    "The lower bar lays the very engine calls of this answer (the plan and each node) end to end, as " +
    "long as they took here: the same tokens, one after another. Where an engine slows down while it " +
    "serves several calls at once (a CPU does, a GPU hardly), a call alone would have been shorter: this " +
    "is the most that can have been gained. It says nothing of a direct answer, which is another text.";

/** Draw in `root`; `onOpen(id)` is called when a bar's label is chosen (null: the plan). */
export function timelineView(root, legend, onOpen) {
    const axis = h("div", { className: "axis-track", "aria-hidden": "true" });
    const rows = h("div", { className: "rows" });
    const compare = h("div", { className: "compare" });
    const whole = row("Took", null);
    const one = row("One by one", null);
    const ownAxis = h("div", { className: "axis-track", "aria-hidden": "true" });
    compare.append(h("div", { className: "axis" }, h("span"), ownAxis), whole.element, one.element);
    const verdict = h("p", { className: "verdict" });
    const how = h(
        "details",
        { className: "how" },
        h("summary", {}, "How this is computed"),
        h("p", {}, HOW),
    );
    root.append(h("div", { className: "axis" }, h("span"), axis), rows, compare, verdict, how);
    const known = new Map();
    const made = new Map();
    paintLegend(legend);

    function makeRow(key) {
        if (key.startsWith("pool-")) return h("p", { className: "pool-head" });
        const id = key === "plan" ? null : Number(key);
        const parts = row("", () => onOpen(id));
        made.set(key, parts);
        return parts.element;
    }

    return {
        update(run, now) {
            const found = bars(run, now);
            const { segments, totalS } = sequence(run, found);
            const wall = wallS(run, now);
            const endS = Math.max(wall, 0.001, ...found.map((bar) => bar.endedS));
            const bothEndS = Math.max(endS, totalS);
            paintAxis(axis, endS);
            paintAxis(ownAxis, bothEndS);
            const keys = [];
            for (const pool of POOLS) {
                const own = found.filter((bar) => bar.pool === pool);
                if (!own.length) continue;
                keys.push(`pool-${pool}`, ...own.slice(0, MOST_ROWS).map((bar) => keyOf(bar)));
            }
            keyed(rows, known, keys, makeRow);
            for (const pool of POOLS) {
                const head = known.get(`pool-${pool}`);
                if (head)
                    paintPool(
                        head,
                        pool,
                        found.filter((bar) => bar.pool === pool),
                    );
            }
            for (const bar of found) {
                if (known.has(keyOf(bar))) paintBar(run, bar, made.get(keyOf(bar)), endS);
            }
            paintWhole(whole, wall, bothEndS);
            paintSequence(one, segments, totalS, bothEndS);
            paintVerdict(verdict, run, now, wall, totalS);
            compare.hidden = how.hidden = verdict.hidden = !segments.length;
        },
    };
}

const keyOf = (bar) => (bar.id === null ? "plan" : String(bar.id));

function row(label, onOpen) {
    const text = onOpen
        ? h("button", { type: "button", className: "row-label", onclick: onOpen })
        : h("span", { className: "row-label" }, label);
    const track = h("div", { className: "track", "aria-hidden": "true" });
    return { element: h("div", { className: "row" }, text, track), label: text, track };
}

function paintAxis(axis, endS) {
    const marks = ticks(endS, axis.clientWidth < 300 ? 4 : 8);
    refresh(axis, `${marks.join()}|${endS.toFixed(2)}`, () =>
        marks.map((mark) => {
            const isLast = mark / endS > 0.94;
            const text = h(
                "span",
                { className: isLast ? "last" : "" },
                mark ? `${round(mark)} s` : "0",
            );
            text.style.left = percent(mark / endS);
            return text;
        }),
    );
}

const round = (value) => Number(value.toFixed(3)).toString();
const percent = (share) => `${(share * 100).toFixed(3)}%`;

function paintPool(head, pool, own) {
    const nodes = own.filter((bar) => bar.id !== null).length;
    const more = own.length > MOST_ROWS ? `, the first ${MOST_ROWS} shown` : "";
    const most = mostAtOnce(own);
    const atOnce = most > 1 ? `, up to ${most} at once` : "";
    const text = `${pool} pool: ${plural(nodes, "node")}${atOnce}${more}`;
    refresh(head, text, () => [h("i", { className: `swatch pool-${pool}` }), text]);
}

function paintBar(run, bar, parts, endS) {
    const { element, label, track } = parts;
    const summary = bar.id === null ? "" : oneLine(run.nodes.get(bar.id)?.spec?.summary ?? "");
    refresh(label, `${bar.id}|${summary}`, () => [
        h("b", {}, nodeName(bar.id)),
        h("span", { dir: "auto" }, bar.id ? summary : ""),
    ]);
    const says = spoken(bar);
    if (label.title !== says) {
        label.title = says;
        label.setAttribute(
            "aria-label",
            `${bar.id === null ? "Plan" : `Node ${nodeName(bar.id)}`}: ${says}`,
        );
    }
    element.className = `row pool-${bar.pool} ${bar.isCritical ? "critical" : ""} ${bar.isRunning ? "running" : ""}`;
    track.style.setProperty("--from", percent(bar.startedS / endS));
    track.style.setProperty("--width", percent((bar.endedS - bar.startedS) / endS));
    refresh(track, JSON.stringify([bar, endS]), () => [
        span("bar-queue", bar.releasedS, bar.startedS, endS),
        span("bar-first", bar.startedS, bar.firstTokenS, endS),
        span("bar-engine", bar.firstTokenS, bar.endedS, endS),
        ...bar.linesS.map((at) => span("tick-line", at, at, endS)),
        ...bar.failedS.map((at) => failure(at, endS)),
    ]);
}

function span(className, fromS, toS, endS) {
    if (toS - fromS <= 0 && className.startsWith("bar")) return null;
    const element = h("i", { className });
    element.style.left = percent(fromS / endS);
    if (toS > fromS) element.style.width = percent((toS - fromS) / endS);
    return element;
}

function failure(at, endS) {
    const mark = span("tick-failed", at, at, endS);
    mark.textContent = "×";
    return mark;
}

function spoken(bar) {
    const queued = bar.startedS - bar.releasedS;
    const engine = bar.endedS - bar.startedS;
    const parts = [
        queued > 0.005 ? `queued ${seconds(queued)}` : "",
        engine > 0 ? `${bar.isRunning ? "decoding since" : "engine"} ${seconds(engine)}` : "",
        bar.failedS.length ? plural(bar.failedS.length, "failed attempt") : "",
        bar.isCritical ? "on the critical path" : "",
    ];
    return parts.filter(Boolean).join(", ");
}

function paintWhole({ label, track }, wall, endS) {
    setText(label, `Took ${seconds(wall)}`);
    refresh(track, `${wall}|${endS}`, () => span("bar-whole whole", 0, wall, endS));
}

function paintSequence({ label, track }, segments, totalS, endS) {
    setText(label, `One by one ${seconds(totalS)}`);
    refresh(track, JSON.stringify([segments, endS]), () =>
        segments.map((part) => {
            const kind = part.id === null ? "plan-part" : "";
            return span(`bar-part seq-part ${kind} pool-${part.pool}`, part.fromS, part.toS, endS);
        }),
    );
}

function paintVerdict(verdict, run, now, wall, totalS) {
    const gain = speedUp(run, now);
    const soFar = run.end ? "" : " so far";
    if (gain === null) return setText(verdict, "");
    refresh(verdict, `${gain.toFixed(1)}${soFar}${seconds(wall)}${seconds(totalS)}`, () => [
        h("b", {}, `${gain.toFixed(1)}×`),
        `${soFar}: ${seconds(wall)} instead of ${seconds(totalS)} for the same tokens one after another, ` +
            "if each call alone took as long.",
    ]);
    return undefined;
}

function paintLegend(legend) {
    const key = (kind, text) => h("span", {}, h("i", { className: `key-bar ${kind}` }), text);
    legend.append(
        key("bar-queue", "queued"),
        key("bar-first", "until the first token"),
        key("bar-engine", "decoding"),
        key("critical-key", "critical path"),
    );
}
