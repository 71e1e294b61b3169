/**
 * Markdown as DOM nodes. marked reads it (its lexer only); every node is made here, and text
 * is only ever set as text, so what a model writes cannot become markup, script or a request
 * to another host. HTML in the text is shown as it was written; images become links.
 */

import { lexer } from "./vendor/marked.js";

import { h } from "./dom.js";

const SAFE_LINK = /^(?:https?:|mailto:)/i;
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };
/** The page's own headings end at this level. */
const LEVELS_ABOVE = 2;

/** Show `text` in `element`; blocks that did not change keep their nodes. */
export function showMarkdown(element, text) {
    const tokens = lexer(text).filter((token) => token.type !== "space" && token.type !== "def");
    const known = element.markdownRaws ?? [];
    let same = 0;
    while (same < tokens.length && known[same] === tokens[same].raw) same++;
    while (element.childNodes.length > same) element.lastChild.remove();
    for (const token of tokens.slice(same)) element.append(block(token));
    element.markdownRaws = tokens.map((token) => token.raw);
}

function block(token) {
    return (BLOCKS[token.type] ?? asWritten)(token);
}

const BLOCKS = {
    paragraph: (token) => h("p", { dir: "auto" }, inlines(token.tokens)),
    text: (token) => h("p", { dir: "auto" }, token.tokens ? inlines(token.tokens) : token.text),
    heading(token) {
        const level = Math.min(6, token.depth + LEVELS_ABOVE);
        return h(`h${level}`, { dir: "auto" }, inlines(token.tokens));
    },
    blockquote: (token) => h("blockquote", {}, token.tokens.filter(isShown).map(block)),
    hr: () => h("hr"),
    code(token) {
        const code = h("code", {}, token.text);
        return h(
            "pre",
            { dir: "ltr", tabIndex: 0, role: "group", "aria-label": codeName(token.lang) },
            code,
        );
    },
    list(token) {
        const list = h(token.ordered ? "ol" : "ul", { dir: "auto" }, token.items.map(listItem));
        if (token.ordered && token.start !== 1) list.start = token.start;
        return list;
    },
    table(token) {
        const cell = (tag) => (one) => h(tag, { dir: "auto" }, inlines(one.tokens));
        const head = h("thead", {}, h("tr", {}, token.header.map(cell("th"))));
        const rows = token.rows.map((row) => h("tr", {}, row.map(cell("td"))));
        const table = h("table", {}, head, h("tbody", {}, rows));
        return h(
            "div",
            { className: "table", tabIndex: 0, role: "group", "aria-label": "Table" },
            table,
        );
    },
};

function listItem(item) {
    const box = item.task ? [item.checked ? "☑ " : "☐ "] : [];
    const shown = item.tokens.filter(isShown);
    const content = shown.flatMap((token) =>
        token.type === "text" ? inlines(token.tokens ?? [token]) : [block(token)],
    );
    return h("li", {}, box, content);
}

const isShown = (token) => !["space", "def", "checkbox"].includes(token.type);
const codeName = (lang) => (lang ? `Code: ${lang}` : "Code");

const INLINES = {
    text: (token) => (token.tokens ? inlines(token.tokens) : decoded(token.text)),
    escape: (token) => token.text,
    strong: (token) => h("strong", {}, inlines(token.tokens)),
    em: (token) => h("em", {}, inlines(token.tokens)),
    del: (token) => h("del", {}, inlines(token.tokens)),
    codespan: (token) => h("code", { dir: "ltr" }, token.text),
    br: () => h("br"),
    link: (token) => link(token.href, inlines(token.tokens), token.raw),
    image: (token) => link(token.href, [`Image: ${token.text || token.href}`], token.raw),
};

function inlines(tokens = []) {
    return tokens.flatMap((token) => (INLINES[token.type] ?? asWritten)(token));
}

function link(href, content, raw) {
    if (!SAFE_LINK.test(href)) return raw;
    return h("a", { href, target: "_blank", rel: "noopener noreferrer nofollow" }, content);
}

function asWritten(token) {
    return token.block || token.type === "html"
        ? h("span", { className: "as-written" }, token.raw)
        : token.raw;
}

function decoded(text) {
    return text.replace(
        /&(?:#(\d{1,7})|#x([\da-f]{1,6})|(\w+));/gi,
        (whole, decimal, hex, name) => {
            if (name) return ENTITIES[name.toLowerCase()] ?? whole;
            const point = decimal ? Number(decimal) : Number.parseInt(hex, 16);
            return point > 0 && point <= 0x10ffff ? String.fromCodePoint(point) : whole;
        },
    );
}
