// What all parts of the page share: the state, requests, colours, numbers as text, elements.

export const state = {
  runs: new Map(),            // number -> row, as the server sends it
  hidden: new Set(),          // numbers of runs that are not drawn
  axis: "iterations",
  scale: "linear",
  smoothing: 0,
  window: null,               // [low, high] where the charts are zoomed
};

export async function ask(name, query = {}, options = {}) {
  const parts = Object.entries(query).filter(([, value]) => value !== null && value !== undefined);
  const answer = await fetch(`api/${name}?${new URLSearchParams(parts)}`, options);
  const kind = answer.headers.get("content-type") || "";
  if (!answer.ok) {
    const told = kind.includes("json") ? (await answer.json()).error : `${answer.status} ${answer.statusText}`;
    throw new Error(told);
  }
  return kind.includes("json") ? answer.json() : answer.arrayBuffer();
}

export const address = (name, query) => `api/${name}?${new URLSearchParams(query)}`;

// Ten colours that most colour-blind people can distinguish; later runs get them in other tones.
const HUES = [24, 212, 145, 330, 265, 45, 185, 0, 95, 300];

export function colour(number) {
  const hue = HUES[number % HUES.length] + 11 * Math.floor(number / HUES.length);
  const dark = isDark();
  const tone = Math.floor(number / HUES.length) % 3;
  return `hsl(${hue % 360} ${dark ? 75 : 78}% ${(dark ? 64 : 40) + (dark ? -7 : 8) * tone}%)`;
}

export const isDark = () => document.documentElement.dataset.theme === "dark";
export const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === 0 || Number.isInteger(value) && Math.abs(value) < 1e7) return value.toLocaleString("en");
  const size = Math.abs(value);
  return size >= 1e6 || size < 1e-4 ? value.toExponential(3) : String(Number(value.toPrecision(5)));
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (Math.abs(seconds) < 120) return `${Number(seconds.toPrecision(3))} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// An element: make("a", {href: "x", text: "y"}, child, ...). Text is never read as HTML.
export function make(kind, attributes = {}, ...children) {
  const element = document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter(child => child !== null && child !== undefined));
  return element;
}

export const get = id => document.getElementById(id);
export const shownRuns = () => [...state.runs.values()].filter(run => !state.hidden.has(run.id));

export function download(name, href) {
  const link = make("a", {href, download: name});
  document.body.append(link);
  link.click();
  link.remove();
}
