/** The panel of one node, of the plan, or of a group; it follows what it shows. */

import { byId, h, icon, refresh, setText } from "./dom.js";
import { DIRECT_NODE, needsOf, partialText, shownIds, stateOf } from "./fold.js";
import { REASON_WORDS, STATE_WORDS, nodeName, oneLine, plural } from "./format.js";
import { showMarkdown } from "./markdown.js";
import { factRows, linesFor, planRows } from "./node_facts.js";

/** Make the panel; `onOpen(item)` is called when another node is chosen in it. */
export function nodeDialog(onOpen) {
    const dialog = byId("node-dialog");
    const title = byId("node-title");
    const body = byId("node-body");
    const sections = new Map();
    let shown = null;
    let opener = null;

    byId("node-close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => {
        if (event.target === dialog) dialog.close();
    });
    dialog.addEventListener("close", () => {
        shown = null;
        if (opener?.isConnected) opener.focus();
    });

    const links = (run, ids) =>
        h(
            "div",
            { className: "links" },
            ids.map((id) => {
                const name = `${nodeName(id)} ${oneLine(run.nodes.get(id)?.spec?.summary ?? "")}`;
                const link = h(
                    "button",
                    { type: "button", className: "button" },
                    icon(stateOf(run, id)),
                    h("span", { dir: "auto" }, name),
                );
                link.addEventListener("click", () =>
                    onOpen({ kind: "node", ids: [id], key: String(id) }),
                );
                return link;
            }),
        );

    /** Show one section; it is only made anew when `signature` changes, so that reading goes on. */
    function show(name, signature, make) {
        if (!sections.has(name)) {
            sections.set(name, h("div", { dataset: { section: name } }));
            body.append(sections.get(name));
        }
        refresh(sections.get(name), signature, make);
        sections.get(name).hidden = !sections.get(name).hasChildNodes();
    }

    function clear() {
        sections.clear();
        body.replaceChildren();
    }

    function update(run) {
        if (!shown || !dialog.open) return;
        if (shown.kind === "plan") showPlan(run);
        else if (shown.kind === "group") showGroup(run, shown);
        else if (run.nodes.has(shown.ids[0])) showNode(run, shown.ids[0]);
    }

    function showPlan(run) {
        setText(title, "Plan");
        const planned = [...run.nodes.values()]
            .filter((node) => node.line)
            .sort((a, b) => a.id - b.id);
        const lines = planned.map((node) => node.line).join("\n");
        show("facts", JSON.stringify(run.plan), () =>
            section("How it was made", facts(planRows(run, REASON_WORDS))),
        );
        show("question", `${run.submitted?.question}`, () =>
            section("What it was given", question(run)),
        );
        show("lines", lines, () =>
            section("Its lines, as the model wrote them", raw(lines || "None yet.")),
        );
        const ids = planned.map((node) => node.id);
        show("nodes", linkSignature(run, ids), () => section("Nodes", links(run, ids)));
    }

    function showGroup(run, group) {
        setText(title, `${plural(group.ids.length, "node")}, ${STATE_WORDS[group.state]}`);
        show("nodes", linkSignature(run, group.ids), () => section("Nodes", links(run, group.ids)));
    }

    function showNode(run, id) {
        const node = run.nodes.get(id);
        const state = stateOf(run, id);
        const summary = oneLine(node.spec?.summary || "The whole answer");
        setText(title, id === DIRECT_NODE ? summary : `${id}. ${summary}`);
        const needs = needsOf(run, id);
        const builds = shownIds(run).filter((other) => needsOf(run, other).includes(id));
        const text = node.decoded?.text ?? partialText(node.partial);
        const rows = factRows(run, id);
        show("state", state, () => stateLine(state));
        show("text", String(text !== ""), () =>
            section("Text", text ? quote() : hint("There is none yet.")),
        );
        if (text) showMarkdown(sections.get("text").querySelector(".quote"), text);
        show("figures", JSON.stringify(rows), () => section("Figures", facts(rows)));
        show("attempts", `${[...node.failures.keys()]}|${state}`, () => attempts(node));
        show(
            "needs",
            linkSignature(run, needs),
            () => needs.length && section("Needs", links(run, needs)),
        );
        show(
            "builds",
            linkSignature(run, builds),
            () => builds.length && section("Needed by", links(run, builds)),
        );
        show("prompt", `${linkSignature(run, needs)}|${linesFor(run, id)}`, () =>
            prompt(run, id, needs),
        );
    }

    const linkSignature = (run, ids) => ids.map((id) => `${id}${stateOf(run, id)}`).join();

    return {
        open(item, run) {
            if (!dialog.open) opener = document.activeElement;
            shown = item;
            clear();
            if (!dialog.open) dialog.showModal();
            update(run);
            body.scrollTop = 0;
        },
        close: () => dialog.open && dialog.close(),
        update,
    };
}

function section(name, ...content) {
    return h("section", {}, h("h3", {}, name), content);
}

function stateLine(state) {
    return h("p", { className: "chip toned", dataset: { state } }, icon(state), STATE_WORDS[state]);
}

function facts(rows) {
    if (!rows.length) return hint("Nothing is known yet.");
    return h(
        "dl",
        { className: "facts" },
        rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))]),
    );
}

function quote() {
    return h("div", {
        className: "quote",
        dir: "auto",
        tabIndex: 0,
        role: "group",
        "aria-label": "Text",
    });
}

const hint = (words) => h("p", { className: "hint" }, words);

function attempts(node) {
    if (!node.failures.size) return null;
    const failed = [...node.failures.values()].map(({ fact }) =>
        h(
            "li",
            { dataset: { state: "failed" } },
            icon("failed"),
            h(
                "span",
                {},
                `Try ${fact.attempt}, ${fact.pool} pool: ${fact.error.message} (${fact.error.code})`,
            ),
        ),
    );
    const done = node.decoded
        ? [
              h(
                  "li",
                  { dataset: { state: "decoded" } },
                  icon("decoded"),
                  h("span", {}, `Try ${node.decoded.attempt}, ${node.decoded.pool} pool: decoded`),
              ),
          ]
        : [];
    return section("Attempts", h("ul", { className: "attempts" }, failed, done));
}

function question(run) {
    return raw([...turns(run), run.submitted?.question ?? ""].join("\n\n"));
}

/** What was said before the question. */
function turns(run) {
    return (run.submitted?.context ?? []).map(({ role, content }) => `[${role}] ${content}`);
}

const raw = (text) =>
    h(
        "p",
        {
            className: "quote raw",
            dir: "auto",
            tabIndex: 0,
            role: "group",
            "aria-label": "As it was sent",
        },
        text,
    );

/** What the node's call is made of; the worker adds its standing rules and an example. */
function prompt(run, id, needs) {
    if (id === DIRECT_NODE) return section("Prompt", question(run));
    const lines = linesFor(run, id);
    const parts = [
        ...turns(run),
        `Question: ${run.submitted?.question ?? ""}`,
        ...(lines.length ? [`Parts of the answer:\n${lines.join("\n")}`] : []),
        ...needs.map(
            (need) => `[text of ${need}: ${run.nodes.get(need)?.decoded?.text ?? "not there yet"}]`,
        ),
        `[Write part ${id}: ${run.nodes.get(id)?.spec?.summary ?? ""}]`,
    ];
    const why =
        "Put together here from the facts: the question, the plan's lines known by then, the needed " +
        "texts, the instruction. The worker puts its standing rules and an example before it.";
    return section("Prompt", raw(parts.join("\n\n")), hint(why));
}
