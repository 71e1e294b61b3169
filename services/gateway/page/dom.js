/** Elements made without markup: text is always text, so nothing that a model says is HTML. */

const SVG = "http://www.w3.org/2000/svg";

/** The element of the page with this id. */
export const byId = (id) => document.getElementById(id);

/** Make an element; `props` are properties, or attributes where the name has a dash. */
export function h(tag, props = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(props)) setProp(element, name, value);
    element.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return element;
}

/** Make an SVG element. */
export function svg(tag, attributes = {}, ...children) {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
}

/** A sign of the page's sprite; it says nothing to a screen reader. */
export function icon(name) {
    const use = svg("use", { href: `#i-${name}` });
    return svg("svg", { class: `icon icon-${name}`, "aria-hidden": "true" }, use);
}

function setProp(element, name, value) {
    if (value === null || value === undefined) return;
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else if (name === "dataset") Object.assign(element.dataset, value);
    else element[name] = value;
}

/** Change text only where it differs: selections stay, and nothing is announced twice. */
export function setText(element, text) {
    if (element.textContent !== text) element.textContent = text;
}

/** Replace the content unless `signature` is that of the last time. */
export function refresh(element, signature, make) {
    if (element.dataset.signature === signature) return;
    element.dataset.signature = signature;
    element.replaceChildren(...[make()].flat().filter(Boolean));
}

/** Keep one child for each key, in this order; `make(key)` makes a missing one. */
export function keyed(parent, known, keys, make) {
    const wanted = new Set(keys);
    for (const [key, element] of known) {
        if (wanted.has(key)) continue;
        element.remove();
        known.delete(key);
    }
    keys.forEach((key, index) => {
        if (!known.has(key)) known.set(key, make(key));
        const element = known.get(key);
        if (parent.children[index] !== element)
            parent.insertBefore(element, parent.children[index] ?? null);
    });
}

/** Says things to screen readers: the last one only, and not more often than every `everyMs`. */
export function announcer(element, everyMs = 2500) {
    let waiting = null;
    let timer = null;
    const say = () => {
        timer = null;
        if (waiting === null) return;
        setText(element, waiting);
        waiting = null;
        timer = setTimeout(say, everyMs);
    };
    return (text) => {
        waiting = text;
        if (timer === null) say();
    };
}
