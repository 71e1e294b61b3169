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
    h("div", { className: "links" }, ids.map((id) => {
      const name = `${nodeName(id)} ${oneLine(run.nodes.get(id)?.spec?.summary ?? "")}`;
      const link = h("button", { type: "button", className: "button" }, icon(stateOf(run, id)), h("span", { dir: "auto" }, name));
      link.addEventListener("click", () => onOpen({ kind: "node", ids: [id], key: String(id) }));
      return link;
    }));

  function update(run) {
    if (!shown || !dialog.open) return;
    if (shown.kind === "plan") showPlan(run);
    else if (shown.kind === "group") showGroup(run, shown);
    else showNode(run, shown.ids[0]);
  }

  function showPlan(run) {
    setText(title, "Plan");
    const lines = [...run.nodes.values()].filter((node) => node.line).sort((a, b) => a.id - b.id);
    refresh(body, JSON.stringify(["plan", run.plan, lines.map((node) => node.line)]), () => [
      section("How it was made", facts(planRows(run, REASON_WORDS))),
      section("What it was given", question(run)),
      section("Its lines, as the model wrote them", raw(lines.map((node) => node.line).join("\n") || "None yet.")),
      section("Nodes", links(run, lines.map((node) => node.id))),
    ]);
  }

  function showGroup(run, group) {
    setText(title, `${plural(group.ids.length, "node")}, ${STATE_WORDS[group.state]}`);
    refresh(body, `group${group.key}${group.ids}`, () => [section("Nodes", links(run, group.ids))]);
  }

  function showNode(run, id) {
    const node = run.nodes.get(id);
    if (!node) return;
    const state = stateOf(run, id);
    const summary = oneLine(node.spec?.summary || "The whole answer");
    setText(title, id === DIRECT_NODE ? summary : `${id}. ${summary}`);
    const needs = needsOf(run, id);
    const builds = shownIds(run).filter((other) => needsOf(run, other).includes(id));
    const signature = JSON.stringify([id, node, [...node.failures], state, needs.map((need) => stateOf(run, need)), builds]);
    refresh(body, signature, () => [
      stateLine(state),
      section("Text", quote(node)),
      section("Figures", facts(factRows(run, id))),
      attempts(node),
      needs.length ? section("Needs", links(run, needs)) : null,
      builds.length ? section("Needed by", links(run, builds)) : null,
      ...prompt(run, id, needs),
    ]);
  }

  return {
    open(item, run) {
      if (!dialog.open) opener = document.activeElement;
      shown = item;
      body.dataset.signature = "";
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
  if (!rows.length) return h("p", { className: "hint" }, "Nothing is known yet.");
  return h("dl", { className: "facts" }, rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))]));
}

function quote(node) {
  const text = node.decoded?.text ?? partialText(node.partial);
  if (!text) return h("p", { className: "hint" }, "There is none yet.");
  const element = h("div", { className: "quote", dir: "auto", tabIndex: 0, role: "group", "aria-label": "Text" });
  showMarkdown(element, text);
  return element;
}

function attempts(node) {
  if (!node.failures.size) return null;
  const failed = [...node.failures.values()].map(({ fact }) =>
    h("li", { dataset: { state: "failed" } }, icon("failed"), h("span", {}, `Try ${fact.attempt}, ${fact.pool} pool: ${fact.error.message} (${fact.error.code})`)),
  );
  const done = node.decoded
    ? [h("li", { dataset: { state: "decoded" } }, icon("decoded"), h("span", {}, `Try ${node.decoded.attempt}, ${node.decoded.pool} pool: decoded`))]
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

const raw = (text) => h("p", { className: "quote raw", dir: "auto", tabIndex: 0, role: "group", "aria-label": "As it was sent" }, text);

/** What the node's call is made of; the worker adds its standing rules and an example. */
function prompt(run, id, needs) {
  if (id === DIRECT_NODE) return [section("Prompt", question(run))];
  const lines = linesFor(run, id);
  const parts = [
    ...turns(run),
    `Question: ${run.submitted?.question ?? ""}`,
    ...(lines.length ? [`Parts of the answer:\n${lines.join("\n")}`] : []),
    ...needs.map((need) => `[text of ${need}: ${run.nodes.get(need)?.decoded?.text ?? "not there yet"}]`),
    `[Write part ${id}: ${run.nodes.get(id)?.spec?.summary ?? ""}]`,
  ];
  const why = h("p", { className: "hint" }, "Put together here from the facts: the question, the plan's lines known by then, the needed texts, the instruction. The worker puts its standing rules and an example before it.");
  return [section("Prompt", raw(parts.join("\n\n")), why)];
}
