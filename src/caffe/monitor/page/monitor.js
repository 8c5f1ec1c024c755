// The page: which runs there are, which charts, what is shown, and what the server tells while runs go on.

import {ask, colour, duration, get, make, number, shownRuns, state} from "./common.js";
import {Chart} from "./chart.js";
import {drawTable} from "./table.js";
import {showRun} from "./run.js";
import {followTheme} from "./theme.js";

const charts = new Map();       // tag -> Chart
let view = "curves";
let chosen = null;              // the run of the view "One run"

// -- runs -------------------------------------------------------------------------------------------------------------

async function loadRuns(changed = null) {
  const answer = await ask("runs", changed ? {runs: changed.join(",")} : {});
  for (const run of answer.runs) {
    announce(state.runs.get(run.id), run);
    state.runs.set(run.id, run);
  }
  if (answer.all > state.runs.size && changed) return loadRuns();
  drawRuns();
  drawSummary(answer.paths);
  arrangeCharts();
  return answer;
}

function announce(before, run) {
  if (before && run.findings > before.findings) get("news").textContent = `New finding in run ${run.name}`;
  if (before && before.state !== run.state && run.state === "failed") get("news").textContent = `Run ${run.name} has failed`;
}

function drawSummary(paths) {
  const counts = {};
  for (const run of state.runs.values()) counts[run.state] = (counts[run.state] || 0) + 1;
  const parts = Object.entries(counts).map(([name, count]) => `${count} ${name}`);
  const total = state.runs.size === 1 ? "1 run" : `${state.runs.size} runs`;
  get("summary").textContent = state.runs.size ? `${total}: ${parts.join(", ")}` : `no runs yet in ${paths.join(", ")}`;
  document.title = counts.training ? `(${counts.training}) Training monitor` : "Training monitor";
}

const items = new Map();        // number -> element of the list

function drawRuns() {
  const list = get("runs");
  const filter = get("filter").value.toLowerCase();
  for (const run of state.runs.values()) {
    let item = items.get(run.id);
    if (!item) {
      item = makeItem(run);
      items.set(run.id, item);
      list.append(item);
    }
    item.hidden = !run.name.toLowerCase().includes(filter);
    fillItem(item, run);
  }
  get("shown").textContent = `${shownRuns().length} of ${state.runs.size} drawn`;
}

function makeItem(run) {
  const box = make("input", {type: "checkbox", "aria-label": `Draw ${run.name}`, onchange: () => show([run.id], box.checked)});
  const item = make("li", {}, box, make("span", {class: "swatch", "aria-hidden": "true"}),
    make("button", {type: "button", class: "open", text: run.name, title: `${run.name}: show its findings, pictures and net`, onclick: () => openRun(run.id)}),
    make("progress", {max: 1, "aria-label": `Progress of ${run.name}`}), make("span", {class: "facts"}));
  return item;
}

function fillItem(item, run) {
  const [box, swatch, , progress, facts] = item.children;
  box.checked = !state.hidden.has(run.id);
  swatch.style.background = colour(run.id);
  item.style.setProperty("--swatch", colour(run.id));
  progress.hidden = !run.max_iter || run.state !== "training";
  progress.value = run.max_iter ? Math.min(1, (run.iteration || 0) / run.max_iter) : 0;
  const left = run.left ? `${duration(run.left)} left` : "";
  const told = [["state " + run.state.replace(" ", "-"), run.state], ["", run.iteration === null ? "" : `it ${number(run.iteration)}`],
    ["", run.loss === null ? "" : `loss ${number(run.loss)}`], ["", left],
    ["flag", run.broken !== null ? "not finite" : ""], ["flag", run.findings ? `${run.findings} found` : ""],
    ["warned", run.messages.length ? "⚠" : ""]];
  facts.replaceChildren(...told.filter(([, text]) => text).map(([kind, text]) => make("span", {class: kind, text, title: text === "⚠" ? run.messages.join("\n") : null})));
}

function show(numbers, on) {
  for (const number of numbers) on ? state.hidden.delete(number) : state.hidden.add(number);
  drawRuns();
  arrangeCharts();
  refreshAll();
}

function listed() {
  return [...state.runs.values()].filter(run => !items.get(run.id).hidden).map(run => run.id);
}

// -- charts -----------------------------------------------------------------------------------------------------------

const MAIN = ["loss", "rate", "speed"];

function groupOf(tag) {
  return MAIN.includes(tag) || /^test\d*\//.test(tag) ? "" : tag.split("/")[0];
}

function rank(tag) {
  const order = {loss: 0, rate: 2, speed: 3};
  return order[tag] ?? (tag.startsWith("test") ? 1 : 4);
}

const watching = new IntersectionObserver(entries => {
  for (const entry of entries) {
    const chart = entry.target.chart;
    chart.visible = entry.isIntersecting;
    if (chart.visible && chart.stale) chart.refresh();
  }
}, {rootMargin: "200px"});

// A chart for each quantity that a shown run has; those of one name before the slash in a group that can be opened.
function arrangeCharts() {
  const tags = [...new Set(shownRuns().flatMap(run => run.tags))].sort((a, b) => rank(a) - rank(b) || a.localeCompare(b, "en", {numeric: true}));
  const place = get("charts");
  for (const [tag, chart] of charts) {
    if (!tags.includes(tag)) {
      watching.unobserve(chart.card);
      chart.card.remove();
      charts.delete(tag);
    }
  }
  for (const tag of tags) {
    if (charts.has(tag)) continue;
    const chart = new Chart(tag, zoom);
    charts.set(tag, chart);
    groupElement(place, groupOf(tag)).append(chart.card);
    watching.observe(chart.card);
  }
  for (const group of place.querySelectorAll("details.group")) {
    const count = group.querySelectorAll(".card").length;
    group.hidden = !count;
    group.querySelector("summary span").textContent = count === 1 ? " 1 chart" : ` ${count} charts`;
  }
  place.querySelector(".empty")?.remove();
  if (!tags.length) place.append(make("p", {class: "empty", text: emptyText()}));
}

function emptyText() {
  if (!state.runs.size) return "There are no runs yet. They appear here as soon as a log or event file is written.";
  if (!shownRuns().length) return "All runs are hidden. Select some in the list.";
  const messages = shownRuns().flatMap(run => run.messages.map(text => `${run.name}: ${text}`));
  return messages.length ? messages.slice(0, 8).join("\n") : "The selected runs have no values yet.";
}

function groupElement(place, name) {
  const known = place.querySelector(`[data-group="${CSS.escape(name)}"]`);
  if (known) return known;
  const grid = make("div", {class: "grid", "data-group": name});
  if (!name) place.prepend(grid);
  else place.append(make("details", {class: "group", "aria-label": name}, make("summary", {text: name}, make("span")), grid));
  return grid;
}

function zoom(window) {
  state.window = window;
  get("whole").disabled = !window;
  refreshAll();
}

const refreshAll = () => charts.forEach(chart => chart.refresh());

function refreshRuns(changed) {
  const tags = new Set(changed.flatMap(id => state.runs.get(id)?.tags ?? []));
  for (const [tag, chart] of charts) if (tags.has(tag)) chart.refresh();
}

// -- views ------------------------------------------------------------------------------------------------------------

const TABS = ["curves", "table", "run"];

function choose(name, focus = false) {
  view = name;
  for (const each of TABS) {
    const tab = get(`tab-${each}`);
    tab.setAttribute("aria-selected", String(each === name));
    tab.tabIndex = each === name ? 0 : -1;
    get(`view-${each}`).hidden = each !== name;
  }
  if (focus) get(`tab-${name}`).focus();
  drawView();
}

function drawView() {
  if (view === "table") drawTable(get("view-table"), openRun);
  if (view === "run") {
    chosen = chosen ?? shownRuns()[0]?.id ?? null;
    showRun(get("view-run"), chosen, openRun);
  }
}

function openRun(id) {
  chosen = id;
  choose("run");
}

for (const name of TABS) {
  get(`tab-${name}`).addEventListener("click", () => choose(name));
  get(`tab-${name}`).addEventListener("keydown", event => {
    const step = {ArrowRight: 1, ArrowLeft: TABS.length - 1}[event.key];
    if (step) choose(TABS[(TABS.indexOf(name) + step) % TABS.length], true);
  });
}

// -- what can be set --------------------------------------------------------------------------------------------------

get("filter").addEventListener("input", drawRuns);
get("all").addEventListener("click", () => show(listed(), true));
get("none").addEventListener("click", () => show(listed(), false));
get("whole").addEventListener("click", () => zoom(null));
get("axis").addEventListener("change", event => { state.axis = event.target.value; zoom(null); });
get("scale").addEventListener("change", event => { state.scale = event.target.value; refreshAll(); });
get("smoothing").addEventListener("input", event => {
  state.smoothing = Number(event.target.value);
  get("smoothed").textContent = state.smoothing;
  refreshAll();
});

function recoloured() {
  drawRuns();
  refreshAll();
  if (view === "run") drawView();
}

let resizing = 0;
addEventListener("resize", () => {
  clearTimeout(resizing);
  resizing = setTimeout(() => charts.forEach(chart => chart.resize()), 150);
});

// -- what the server tells --------------------------------------------------------------------------------------------

function notice(text) {
  get("notice").textContent = text;
  get("notice").hidden = !text;
}

let pending = new Set(), updating = false;

async function update(changed) {
  changed.forEach(id => pending.add(id));
  if (updating) return;
  updating = true;
  try {
    while (pending.size) {
      const now = [...pending];
      pending = new Set();
      await loadRuns(now);
      refreshRuns(now);
      if (view === "table" || view === "run" && now.includes(chosen)) drawView();
    }
    notice("");
  } catch (error) {
    notice(`The monitor does not answer: ${error.message}`);
  } finally {
    updating = false;
  }
}

function listen() {
  const events = new EventSource("api/events");
  let lost = false;
  events.onmessage = event => update(JSON.parse(event.data));
  events.onopen = () => {
    if (lost) loadRuns().then(refreshAll);
    lost = false;
    notice("");
  };
  events.onerror = () => {
    lost = true;
    notice("The connection to the monitor is lost (was it ended?). The page tries again every few seconds.");
  };
}

async function showSystem() {
  if (!document.hidden) {
    try {
      const load = await ask("system");
      const share = value => value === null ? "–" : `${Math.round(100 * value)} %`;
      const parts = [`CPU ${share(load.cpu)} of ${load.cores} cores`];
      if (load.memory) parts.push(`memory ${(load.memory.used / 2 ** 30).toFixed(1)} of ${(load.memory.total / 2 ** 30).toFixed(0)} GB`);
      for (const card of load.gpus) parts.push(`${card.name} ${share(card.load)}, ${(card.used / 2 ** 30).toFixed(1)} of ${(card.total / 2 ** 30).toFixed(0)} GB, ${card.heat} °C`);
      get("system").textContent = parts.join(" · ");
    } catch { /* the notice of the lost connection says it */ }
  }
  setTimeout(showSystem, 10000);
}

followTheme(recoloured);
loadRuns().then(listen, error => notice(`The monitor does not answer: ${error.message}`));
showSystem();
