import assert from "node:assert/strict";
import { test } from "node:test";

import { showMarkdown } from "../../services/gateway/page/markdown.js";

/** As much of a document as elements are made with; what would read markup is not there. */
class Element {
    constructor(tag) {
        this.tag = tag;
        this.childNodes = [];
    }
    append(...nodes) {
        this.childNodes.push(...nodes);
    }
    setAttribute(name, value) {
        this[name] = value;
    }
    get lastChild() {
        return { remove: () => this.childNodes.pop() };
    }
}
globalThis.document = { createElement: (tag) => new Element(tag) };

const TAGS = "a blockquote br code del em h3 h4 h5 h6 hr li ol p pre span strong table tbody td th thead tr ul div";
const PROPS = "aria-label childNodes className dir href rel role start tabIndex tag target";
const MARKUP = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "text <b onclick=alert(1)>inline</b> text",
    "<style>* { display: none }</style>",
    "> <iframe src=//evil.invalid></iframe>",
    "- <svg onload=alert(1)>",
    "| <object data=x> |\n| --- |\n| <embed src=x> |",
    "# <form action=//evil.invalid>",
    "```html\n<script>alert(1)</script>\n```",
    "``` \"><script>\nx\n```",
    "&lt;script&gt; &#60;script&#62; &#x3c;script&#x3e;",
];
const LINKS = [
    "[go](javascript:alert(1))",
    "[go](JaVaScRiPt:alert(1))",
    "[go](java&#115;cript:alert(1))",
    "[go](&#x6A;avascript:alert(1))",
    "[go](<java\tscript:alert(1)>)",
    "[go]( javascript:alert(1))",
    "[go](data:text/html,<script>alert(1)</script>)",
    "[go](vbscript:x)",
    "[go](file:///etc/passwd)",
    "[go](//evil.invalid)",
    "[go](/v1/requests)",
    "![x](javascript:alert(1))",
    "<javascript:alert(1)>",
    "[go][1]\n\n[1]: javascript:alert(1)",
];

function shown(text) {
    const root = new Element("root");
    showMarkdown(root, text);
    const elements = [];
    const texts = [];
    const visit = (node) => {
        if (!(node instanceof Element)) return texts.push(node);
        elements.push(node);
        node.childNodes.forEach(visit);
    };
    root.childNodes.forEach(visit);
    return { elements, text: texts.join("") };
}

test("markup is text: only elements of the page's own, with its own attributes", () => {
    for (const text of [...MARKUP, ...LINKS]) {
        for (const element of shown(text).elements) {
            assert.ok(TAGS.split(" ").includes(element.tag), `${element.tag} of ${text}`);
            for (const name of Object.keys(element))
                assert.ok(PROPS.split(" ").includes(name), `${name} of ${text}`);
        }
    }
    for (const text of MARKUP.slice(0, 4)) assert.equal(shown(text).text, text);
});

test("a link leads to the web or to a mailbox, or it is no link", () => {
    for (const text of LINKS)
        for (const { href } of shown(text).elements)
            assert.ok(href === undefined || /^(https?:\/\/|mailto:)/.test(href), `${href} of ${text}`);
    const [, link] = shown("[go](https://example.org/a)").elements;
    assert.equal(link.href, "https://example.org/a");
    assert.equal(link.rel, "noopener noreferrer nofollow");
});

test("an image is a link that nobody has followed yet", () => {
    const { elements, text } = shown("![spy](https://evil.invalid/spy.png)");
    assert.deepEqual(elements.map((element) => element.tag), ["p", "a"]);
    assert.equal(text, "Image: spy");
});
