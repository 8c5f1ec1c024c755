// The button for the colours: those of the system, light, or dark.

import {get} from "./common.js";

const THEMES = ["auto", "light", "dark"];

// Follow the button and the system; `changed` is called after each change of the colours.
export function followTheme(changed = () => {}) {
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  let theme = localStorage.getItem("theme") ?? "auto";

  function apply() {
    const dark = theme === "dark" || theme === "auto" && systemDark.matches;
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    get("theme").textContent = `Colours: ${theme}`;
    changed();
  }

  get("theme").addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    localStorage.setItem("theme", theme);
    apply();
  });
  systemDark.addEventListener("change", apply);
  apply();
}
