/** The graph as a table: the same for those who cannot, or would rather not, see a drawing. */

import { h, icon, refresh } from "./dom.js";
import { nodeName, oneLine } from "./format.js";
import { listRows } from "./node_facts.js";

const HEADS = [
    ["Node", ""],
    ["Point", ""],
    ["State", ""],
    ["Needs", ""],
    ["Pool", ""],
    ["Queued", "number"],
    ["First token", "number"],
    ["Engine", "number"],
    ["Tokens", "number"],
    ["Try", "number"],
];

/** Draw in `root`; `onOpen(id)` is called when a node is chosen. */
export function listView(root, onOpen) {
    root.tabIndex = 0;
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", "Nodes");
    root.addEventListener("click", (event) => {
        const id = event.target.closest("button")?.dataset.id;
        if (id !== undefined) onOpen(Number(id));
    });
    return {
        update(run) {
            const rows = listRows(run);
            const focusedId = root.contains(document.activeElement)
                ? document.activeElement.dataset.id
                : null;
            refresh(root, JSON.stringify(rows), () => table(rows));
            if (focusedId) root.querySelector(`button[data-id="${focusedId}"]`)?.focus();
        },
    };
}

function table(rows) {
    if (!rows.length) return h("p", { className: "graph-empty" }, "There are no nodes yet.");
    const head = HEADS.map(([text, className]) => h("th", { scope: "col", className }, text));
    return h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows.map(tableRow)));
}

function tableRow(row) {
    const name = nodeName(row.id);
    const open = h(
        "button",
        { type: "button", dataset: { id: row.id }, "aria-label": `Node ${name}, details` },
        name,
    );
    const state = h(
        "span",
        { className: "state", dataset: { state: row.state } },
        icon(row.state),
        row.words,
    );
    const number = (value) => h("td", { className: "number" }, String(value));
    return h(
        "tr",
        {},
        h("td", {}, open),
        h("td", { dir: "auto" }, oneLine(row.summary)),
        h("td", {}, state),
        h("td", {}, row.needs),
        h("td", {}, row.pool),
        [row.queued, row.first, row.decode, row.tokens, row.attempt].map(number),
    );
}
