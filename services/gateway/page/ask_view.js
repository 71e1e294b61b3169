/** The form that asks, and the list of what was asked lately. */

import { byId, h, icon, refresh, setText } from "./dom.js";
import { RUN_WORDS, ago } from "./format.js";

const MODE_HINTS = {
    auto: "The planner decides whether a plan pays.",
    direct: "One call, no plan: what the others are compared with.",
    sot: "Skeleton of thought: all points at once, none builds on another.",
    sgd: "Skeleton graph decoding: points may build on points.",
};
const SIGNS = {
    answered: "decoded",
    drafted: "decoded",
    open: "decoding",
    failed: "failed",
    cancelled: "cancelled",
};
const REFRESH_MS = 5000;

/**
 * Make the view. `onAsk(request)` submits, and throws a Problem; `loadRecent()` returns
 * {items, note}.
 */
export function askView(onAsk, loadRecent) {
    const form = byId("ask-form");
    const question = byId("question");
    const button = byId("ask-button");
    const problem = byId("ask-problem");
    let loading = null;
    let retry = null;

    setText(byId("ask-keys"), /Mac|iPhone|iPad/.test(navigator.platform) ? "⌘ ↵" : "Ctrl ↵");
    const sayMode = () => setText(byId("mode-hint"), MODE_HINTS[form.elements.mode.value]);
    form.elements.mode.addEventListener("change", sayMode);
    sayMode();
    question.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
        event.preventDefault();
        form.requestSubmit();
    });
    form.addEventListener("submit", (event) => {
        event.preventDefault();
        ask();
    });

    async function ask() {
        clearTimeout(retry);
        if (!question.value.trim()) return refuse("There is no question yet.", question);
        const wrong = [...form.elements].find((field) => !field.validity.valid);
        if (wrong) return refuse(`${labelOf(wrong)}: ${wrong.validationMessage}`, wrong);
        button.disabled = true;
        problem.hidden = true;
        try {
            await onAsk(requestOf(form));
        } catch (error) {
            showProblem(problem, error, ask, (timer) => (retry = timer));
        } finally {
            button.disabled = false;
        }
        return undefined;
    }

    function refuse(words, field) {
        problem.replaceChildren(words);
        problem.hidden = false;
        const folded = field.closest("details");
        if (folded) folded.open = true;
        field.focus();
    }

    async function load() {
        const { items, note } = await loadRecent();
        setText(byId("recent-note"), note);
        const now = Date.now() / 1000;
        const signature = JSON.stringify([items, items.map((item) => ago(item.submitted_at, now))]);
        refresh(byId("recent-list"), signature, () => items.map((item) => entry(item, now)));
    }

    return {
        show() {
            load();
            loading = setInterval(() => document.hidden || load(), REFRESH_MS);
            if (matchMedia("(hover: hover)").matches) question.focus({ preventScroll: true });
        },
        hide() {
            clearInterval(loading);
            clearTimeout(retry);
        },
        fill(submitted) {
            question.value = submitted.question;
            for (const name of ["mode", "max_nodes", "deadline_s", "on_failure"])
                form.elements[name].value = submitted[name];
            for (const name of ["adaptive", "dry_run"])
                form.elements[name].checked = submitted[name];
            for (const name of ["max_tokens", "temperature", "seed"])
                form.elements[name].value = submitted.sampling?.[name] ?? "";
            sayMode();
        },
    };
}

function labelOf(field) {
    return field.labels?.[0]?.textContent.trim().split("\n")[0] ?? field.name;
}

function requestOf(form) {
    const value = (name) => form.elements[name].value.trim();
    const number = (name) => (value(name) === "" ? null : Number(value(name)));
    const sampling = Object.fromEntries(
        ["max_tokens", "temperature", "seed"]
            .map((name) => [name, number(name)])
            .filter(([, one]) => one !== null),
    );
    return {
        question: form.elements.question.value,
        mode: value("mode"),
        adaptive: form.elements.adaptive.checked,
        dry_run: form.elements.dry_run.checked,
        max_nodes: number("max_nodes") ?? 12,
        deadline_s: number("deadline_s") ?? 600,
        on_failure: value("on_failure"),
        ...(Object.keys(sampling).length ? { sampling } : {}),
    };
}

function entry(item, now) {
    const sign = SIGNS[item.state] ?? "planned";
    return h(
        "li",
        {},
        h(
            "a",
            { href: `#/r/${encodeURIComponent(item.id)}` },
            h("span", { className: "asked", dir: "auto" }, item.question || item.id),
            h(
                "span",
                { className: "about" },
                h(
                    "span",
                    { className: "toned", dataset: { state: sign } },
                    icon(sign),
                    ` ${RUN_WORDS[item.state] ?? "asked"}`,
                ),
                item.asked_mode ? h("span", {}, item.asked_mode) : null,
                item.submitted_at ? h("span", {}, ago(item.submitted_at, now)) : null,
            ),
        ),
    );
}

/** Say what went wrong in `element`; a busy gateway is asked again by itself, if one lets it. */
export function showProblem(element, problem, again, onTimer = () => {}) {
    const what = h("p", {}, `${problem.message} `, h("code", {}, problem.code ?? "error"));
    element.replaceChildren(what);
    element.hidden = false;
    if (!problem.isPassing || !again) return;
    const button = h(
        "button",
        { type: "button", className: "button", onclick: again },
        "Try again",
    );
    element.append(button);
    let leftS = problem.status === 429 ? Math.ceil(problem.retryAfterS ?? 0) : 0;
    const count = () => {
        if (leftS <= 0) return setText(button, "Try again");
        setText(button, `Try again (free in about ${leftS} s)`);
        leftS -= 1;
        onTimer(setTimeout(count, 1000));
        return undefined;
    };
    count();
}
