/** Light, dark, or as the system has it. */

const NAME = "skelgraph.theme";
const ORDER = ["system", "light", "dark"];
const WORDS = { system: "as the system", light: "light", dark: "dark" };

/** Let `button` go through the themes; the choice is kept. */
export function initTheme(button) {
    let theme = ORDER.includes(localStorage.getItem(NAME)) ? localStorage.getItem(NAME) : "system";
    const apply = () => {
        if (theme === "system") delete document.documentElement.dataset.theme;
        else document.documentElement.dataset.theme = theme;
        button.setAttribute("aria-label", `Colours: ${WORDS[theme]}`);
        button.title = `Colours: ${WORDS[theme]}`;
    };
    button.addEventListener("click", () => {
        theme = ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length];
        localStorage.setItem(NAME, theme);
        apply();
    });
    apply();
}
