/** The graph as buttons on lines; arrow keys move along it. */

import { tokensOfNode } from "./node_facts.js";
import { h, icon, keyed, refresh, setText, svg } from "./dom.js";
import { isFallback, lastFailure, planPool, poolOf, waitsFor } from "./fold.js";
import { SHORT_WORDS, STATE_WORDS, idList, oneLine, plural } from "./format.js";
import { graphItems, neighbour } from "./graph.js";
import { layOut } from "./layout.js";

const GAP = { wide: 30, compact: 14 };
const WIDTH = { most: 210, least: 58 };
/** The plan needs less room than a node with its summary. */
const PLAN_WIDTH = 80;
/** Narrower nodes show no summary. */
const COMPACT_BELOW = 104;
const ROW = { wide: 66, compact: 50 };
const ROW_GAP = 9;
const ARROWS = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down" };

/** Draw in `root`; `onOpen(item)` is called when an item is chosen. */
export function graphView(root, legend, onOpen) {
    const lines = svg("svg", { "aria-hidden": "true" });
    const canvas = h("div", { className: "graph-canvas" }, lines);
    const empty = h("p", { className: "graph-empty" });
    root.append(empty, canvas);
    const buttons = new Map();
    let items = [];
    let layout = null;
    let drawn = "";
    let focused = "plan";

    canvas.addEventListener("keydown", (event) => {
        const key = event.target.dataset.key;
        const to = key && target(event.key, key);
        if (!to) return;
        event.preventDefault();
        focused = to;
        setTabStops();
        buttons.get(to).focus();
    });

    function target(pressed, key) {
        if (pressed in ARROWS) return neighbour(layout, key, ARROWS[pressed]);
        if (pressed === "Home") return items[0].key;
        return pressed === "End" ? items.at(-1).key : null;
    }

    function setTabStops() {
        if (!buttons.has(focused)) focused = items[0]?.key;
        for (const [key, button] of buttons) button.tabIndex = key === focused ? 0 : -1;
    }

    function makeButton(key) {
        const button = h("button", { type: "button", className: "node", dataset: { key } });
        const name = h("span", { className: "node-name", dir: "auto" });
        const sign = h("span", { className: "sign" });
        button.append(
            name,
            h("span", { className: "node-line" }, sign, h("span", { className: "node-state" })),
        );
        button.addEventListener("click", () => onOpen(items.find((item) => item.key === key)));
        button.addEventListener("focus", () => {
            focused = key;
            setTabStops();
        });
        return button;
    }

    function place() {
        const width = root.clientWidth - 30;
        const shape = items.map((item) => `${item.key}<${item.needs}`).join(";");
        if (`${shape}|${width}` === drawn) return;
        drawn = `${shape}|${width}`;
        layout = layOut(items);
        const isTight = fitting(width, GAP.wide, PLAN_WIDTH) < COMPACT_BELOW;
        const gap = isTight ? GAP.compact : GAP.wide;
        const planWidth = isTight ? WIDTH.least : PLAN_WIDTH;
        const nodeWidth = Math.max(
            WIDTH.least,
            Math.min(WIDTH.most, fitting(width, gap, planWidth)),
        );
        const row = isTight ? ROW.compact : ROW.wide;
        root.classList.toggle("compact", isTight);
        const left = (column) =>
            column === 0 ? 0 : planWidth + gap + (column - 1) * (nodeWidth + gap);
        const wide = (column) => (column === 0 ? planWidth : nodeWidth);
        const size = { left, wide, y: row, height: row - ROW_GAP };
        drawPlaces(size);
        drawLines(size);
    }

    function fitting(width, gap, planWidth) {
        return Math.floor((width - planWidth) / (layout.columns - 1)) - gap;
    }

    function drawPlaces(size) {
        const last = layout.columns - 1;
        canvas.style.width = `${size.left(last) + size.wide(last)}px`;
        canvas.style.height = `${layout.rows * size.y}px`;
        for (const [key, { column, row }] of layout.places) {
            const button = buttons.get(key);
            const { style } = button;
            style.width = `${size.wide(column)}px`;
            style.height = `${size.height}px`;
            style.transform = `translate(${size.left(column)}px, ${row * size.y - size.height / 2}px)`;
            // It glides when the graph grows, but does not fly in from the corner.
            requestAnimationFrame(() => (button.dataset.placed = ""));
        }
    }

    function drawLines(size) {
        const points = ({ from, to, via }) => {
            const start = layout.places.get(from);
            const end = layout.places.get(to);
            const passed = via.flatMap(({ column, row }) => [
                [size.left(column), row * size.y],
                [size.left(column) + size.wide(column), row * size.y],
            ]);
            const first = [size.left(start.column) + size.wide(start.column), start.row * size.y];
            return [first, ...passed, [size.left(end.column) - 5, end.row * size.y]];
        };
        const paths = layout.edges.map((edge) =>
            svg("path", {
                class: "edge",
                d: smooth(points(edge)),
                "data-from": edge.from,
                "data-to": edge.to,
            }),
        );
        const heads = layout.edges.map(({ to }) => {
            const { column, row } = layout.places.get(to);
            const [x, y] = [size.left(column), row * size.y];
            return svg("path", { class: "edge-head", d: `M${x - 1} ${y}l-6-3.5v7z` });
        });
        lines.replaceChildren(...paths, ...heads);
    }

    function paintLines(run) {
        const path = run.end?.timings?.critical_path ?? [];
        const steps = new Set(
            ["plan", ...path].slice(1).map((id, index) => `${["plan", ...path][index]}→${id}`),
        );
        const states = new Map(items.map((item) => [item.key, item.state]));
        for (const line of lines.querySelectorAll(".edge")) {
            const { from, to } = line.dataset;
            const isFlowed = from === "plan" || states.get(from) === "decoded";
            line.classList.toggle("flowed", isFlowed && states.get(to) !== "skipped");
            line.classList.toggle("critical", steps.has(`${from}→${to}`));
        }
    }

    return {
        update(run) {
            items = graphItems(run);
            const hasNodes = items.length > 1;
            empty.hidden = hasNodes;
            canvas.hidden = !hasNodes;
            setText(empty, hasNodes ? "" : emptyWords(run));
            if (!hasNodes) return;
            keyed(
                canvas,
                buttons,
                items.map((item) => item.key),
                makeButton,
            );
            canvas.append(lines);
            const path = new Set(run.end?.timings?.critical_path ?? []);
            place();
            const isCompact = root.classList.contains("compact");
            for (const item of items) paint(run, item, buttons.get(item.key), path, isCompact);
            paintLines(run);
            setTabStops();
            paintLegend(legend, run);
        },
        focus(key) {
            buttons.get(key)?.focus();
        },
    };
}

function smooth(points) {
    const [first, ...rest] = points;
    let [x, y] = first;
    const parts = rest.map(([toX, toY]) => {
        const bend = (toX - x) / 2;
        const part = `C${x + bend} ${y} ${toX - bend} ${toY} ${toX} ${toY}`;
        [x, y] = [toX, toY];
        return part;
    });
    return `M${first[0]} ${first[1]}${parts.join("")}`;
}

function emptyWords(run) {
    if (run.end) return "There was no plan.";
    return run.acceptedAt === null
        ? "Waiting for a planner…"
        : "Planning: the first point comes soon…";
}

function paint(run, item, button, path, isCompact) {
    const about = describe(run, item);
    button.dataset.state = item.state;
    const isCritical = item.kind === "plan" ? path.size > 0 : item.ids.some((id) => path.has(id));
    button.className = `node ${item.kind} pool-${about.pool} ${isCritical && item.kind !== "group" ? "critical" : ""}`;
    const [name, line] = button.children;
    refresh(line.children[0], item.state, () => icon(item.state));
    refresh(name, `${about.number}|${about.summary}`, () => [
        h("b", {}, about.number),
        h("span", {}, about.summary),
    ]);
    setText(line.children[1], isCompact ? (about.brief ?? about.detail) : about.detail);
    const says = isCritical ? `${about.label}, on the critical path` : about.label;
    if (button.getAttribute("aria-label") !== says) button.setAttribute("aria-label", says);
    button.title = about.summary;
}

function describe(run, item) {
    if (item.kind === "plan") return describePlan(run, item);
    if (item.kind === "group") return describeGroup(item);
    const [id] = item.ids;
    const node = run.nodes.get(id);
    const summary = oneLine(
        node.spec?.summary || (item.isFallback ? "direct answer instead" : "the whole answer"),
    );
    const pool = poolOf(run, node) ?? "";
    const words = STATE_WORDS[item.state];
    const waits = waitsFor(run, id);
    const tokens = tokensOfNode(node);
    const failure = lastFailure(node);
    const more = {
        waiting: waits.join(", "),
        decoding: tokens ? `${tokens} tok` : "",
        decoded: `${tokens} tok`,
        failed: failure?.fact.error.code ?? "",
        retry: `try ${node.attempt}`,
    }[item.state];
    const needs = node.spec?.needs ?? [];
    const label = [
        id === 0 ? "Whole answer" : `Node ${id}, ${summary}`,
        item.state === "waiting" ? `waiting for ${idList(waits)}` : words,
        pool && `${pool} pool`,
        needs.length ? `needs ${idList(needs)}` : "",
    ];
    return {
        number: id === 0 ? "·" : String(id),
        summary,
        pool,
        detail: [words, more].filter(Boolean).join(" · "),
        brief: tokens ? String(tokens) + (node.decoded ? "" : "…") : SHORT_WORDS[item.state],
        label: label.filter(Boolean).join(", "),
    };
}

function describePlan(run, item) {
    const count = [...run.nodes.values()].filter((node) => node.spec).length;
    const words = item.state === "decoding" ? "planning" : STATE_WORDS[item.state];
    return {
        number: "Plan",
        summary: "",
        pool: planPool(run),
        detail: run.plan ? run.plan.mode : item.state === "decoding" ? `${count}…` : words,
        brief: run.plan ? run.plan.mode : count ? `${count}…` : "",
        label: `Plan, ${words}, ${plural(count, "node")}${isFallback(run) ? ", answered directly instead" : ""}`,
    };
}

function describeGroup(item) {
    const words = `${plural(item.ids.length, "node")}`;
    return {
        number: String(item.ids.length),
        summary: `nodes, step ${item.column}`,
        pool: "",
        detail: STATE_WORDS[item.state],
        label: `${words} of step ${item.column}, ${STATE_WORDS[item.state]}`,
    };
}

function paintLegend(legend, run) {
    const pools = new Set([planPool(run)]);
    for (const node of run.nodes.values()) {
        const pool = poolOf(run, node);
        if (pool) pools.add(pool);
    }
    refresh(legend, [...pools].sort().join(), () =>
        [...pools]
            .sort()
            .map((pool) =>
                h("span", {}, h("i", { className: `swatch pool-${pool}` }), `${pool} pool`),
            ),
    );
}
