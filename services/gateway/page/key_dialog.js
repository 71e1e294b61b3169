/** Asks for the API key when the gateway wants one. */

import { byId, setText } from "./dom.js";
import { forgetAll } from "./recent.js";

/** Let the button in the bar change or forget the key. */
export function initKey(api) {
    const button = byId("key-button");
    button.hidden = !api.key;
    button.addEventListener("click", () => askForKey(api, null));
}

/** Show the dialog; returns whether a new key was given. */
export function askForKey(api, problem) {
    const dialog = byId("key-dialog");
    const input = byId("key-input");
    const wrong = byId("key-problem");
    input.value = "";
    wrong.hidden = !(problem && api.key);
    setText(wrong, wrong.hidden ? "" : problem.message);
    byId("key-forget").hidden = !api.key;
    dialog.returnValue = "";
    dialog.showModal();
    return new Promise((resolve) => {
        const form = byId("key-form");
        const use = () => {
            api.key = input.value.trim();
        };
        const forget = () => {
            api.key = null;
            forgetAll();
            dialog.close("");
        };
        form.addEventListener("submit", use);
        byId("key-forget").addEventListener("click", forget);
        dialog.addEventListener(
            "close",
            () => {
                form.removeEventListener("submit", use);
                byId("key-forget").removeEventListener("click", forget);
                byId("key-button").hidden = !api.key;
                resolve(dialog.returnValue === "used");
            },
            { once: true },
        );
    });
}
