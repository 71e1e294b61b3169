/** The answer in the order of its plan; parts that came before their turn are shown as previews. */

import { h, icon, keyed, refresh, setText } from "./dom.js";
import { answerParts, isFallback, stateOf } from "./fold.js";
import { STATE_WORDS, nodeName, oneLine } from "./format.js";
import { showMarkdown } from "./markdown.js";
import { tokensOfNode } from "./node_facts.js";

/** So much of a text that waits for its turn is shown. */
const AHEAD_CHARS = 320;

/** Draw in `root`; `onOpen(id)` is called when a part's number is chosen. */
export function answerView(root, note, onOpen) {
    const empty = h("p", { className: "hint" });
    const list = h("div", {});
    root.append(empty, list);
    const known = new Map();

    function make(key) {
        const id = Number(key);
        const name = nodeName(id);
        const open = h(
            "button",
            { type: "button", className: "part-id", "aria-label": `Node ${name}, details` },
            id ? name : "·",
        );
        open.addEventListener("click", () => onOpen(id));
        const status = h("p", { className: "part-status" });
        const text = h("div", { className: "part-text", dir: "auto" });
        return h(
            "section",
            { className: "part", dataset: { id: key } },
            open,
            h("div", {}, status, text),
        );
    }

    return {
        update(run) {
            const parts = run.submitted?.dry_run ? [] : answerParts(run);
            keyed(
                list,
                known,
                parts.map((part) => String(part.id)),
                make,
            );
            for (const part of parts) paint(run, part, known.get(String(part.id)));
            empty.hidden = parts.length > 0;
            setText(empty, emptyWords(run));
            setText(note, noteWords(run, parts));
        },
    };
}

function paint(run, part, section) {
    const [status, text] = section.lastChild.children;
    const node = run.nodes.get(part.id);
    const state = node ? stateOf(run, part.id) : "planned";
    const said = `${part.text}|${part.phase}|${part.isWhole}|${run.end === null}|${state}|${node?.tokens}`;
    if (section.said === said) return;
    section.said = said;
    section.dataset.phase = part.phase;
    section.dataset.grows = !part.isWhole && run.end === null;
    section.dataset.state = state;
    const isPlain = part.phase === "ordered";
    status.hidden = isPlain;
    text.hidden = part.phase === "empty";
    if (!isPlain) paintStatus(status, node, state, part);
    if (part.phase !== "empty") showMarkdown(text, isPlain ? part.text : tail(part.text));
}

function tail(text) {
    const points = Array.from(text);
    return points.length > AHEAD_CHARS ? `…${points.slice(-AHEAD_CHARS).join("")}` : text;
}

function paintStatus(status, node, state, part) {
    const summary = oneLine(node?.spec?.summary ?? "");
    const tokens = node ? tokensOfNode(node) : 0;
    const ahead = part.phase === "ahead" ? `, ${tokens} tokens, waits for its turn` : "";
    refresh(status, `${state}|${summary}|${ahead}`, () => [
        icon(state),
        h(
            "span",
            {},
            h("span", { dir: "auto" }, summary),
            `${summary ? ": " : ""}${STATE_WORDS[state]}${ahead}`,
        ),
    ]);
}

function emptyWords(run) {
    if (run.submitted?.dry_run) return "This is only planned: nothing is written.";
    return run.end ? "There is no answer." : "Nothing is written yet.";
}

function noteWords(run, parts) {
    if (isFallback(run)) return "A node failed for good; this is the direct answer instead.";
    if (run.end?.type === "RequestFailed" && parts.some((part) => part.text))
        return "What was there when it ended.";
    return "";
}
