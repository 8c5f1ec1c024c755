// The table of runs: what they have reached, and the solver's fields in which they differ.

import {duration, make, number, state} from "./common.js";

let order = "name", falling = false;

const COLUMNS = [
  ["name", run => run.name], ["state", run => run.state], ["iteration", run => run.iteration], ["loss", run => run.loss],
  ["it/s", run => run.speed], ["left", run => run.left], ["findings", run => run.findings],
];

// Fields with the same value in all runs are not shown.
function differing(runs) {
  const known = runs.map(run => run.settings).filter(settings => Object.keys(settings).length);
  const names = [...new Set(known.flatMap(Object.keys))].sort();
  return names.filter(name => new Set(known.map(settings => settings[name])).size > 1);
}

export function drawTable(place, openRun) {
  const runs = [...state.runs.values()];
  const tests = [...new Set(runs.flatMap(run => Object.keys(run.tests)))].sort();
  const fields = differing(runs);
  const columns = [...COLUMNS, ...tests.map(tag => [tag, run => run.tests[tag]]), ...fields.map(name => [name, run => run.settings[name]])];
  const read = (columns.find(([name]) => name === order) ?? columns[0])[1];
  runs.sort((one, other) => compare(read(one), read(other)) * (falling ? -1 : 1));
  const head = make("tr", {}, ...columns.map(([name]) => make("th", {
    scope: "col", class: fields.includes(name) ? "differs" : "", "aria-sort": name !== order ? "none" : falling ? "descending" : "ascending"},
    make("button", {type: "button", text: name + (name === order ? (falling ? " ▼" : " ▲") : ""), onclick: () => {
      falling = name === order ? !falling : false;
      order = name;
      drawTable(place, openRun);
    }}))));
  const rows = runs.map(run => make("tr", {}, ...columns.map(([name, value]) => cell(name, value(run), run, openRun))));
  const caption = fields.length ? "Coloured columns are fields of the solver in which the runs differ." :
    "The runs' solvers do not differ, or are not in the files.";
  place.replaceChildren(
    make("div", {class: "controls"}, make("span", {class: "hint", text: caption}),
      make("button", {type: "button", text: "CSV", "aria-label": "This table as a CSV file", onclick: () => save(columns, runs)})),
    make("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": "Table of runs"},
      make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows))));
}

function cell(name, value, run, openRun) {
  if (name === "name") return make("td", {}, make("button", {type: "button", text: value, onclick: () => openRun(run.id)}));
  if (name === "state") return make("td", {class: `state ${value.replace(" ", "-")}`, text: value});
  if (name === "left") return make("td", {class: "number", text: duration(value)});
  if (typeof value === "number") return make("td", {class: "number", text: number(value)});
  return make("td", {class: value !== undefined && isNumber(value) ? "number" : "", text: value ?? "–"});
}

const isNumber = value => value !== "" && !Number.isNaN(Number(value));

function compare(one, other) {
  const missing = value => value === null || value === undefined;
  if (missing(one) || missing(other)) return missing(one) - missing(other);
  if (isNumber(one) && isNumber(other)) return Number(one) - Number(other);
  return String(one).localeCompare(String(other), "en", {numeric: true});
}

function save(columns, runs) {
  const quoted = value => value === null || value === undefined ? "" : /[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value);
  const lines = [columns.map(([name]) => quoted(name)), ...runs.map(run => columns.map(([, value]) => quoted(value(run))))];
  const link = make("a", {download: "runs.csv", href: URL.createObjectURL(new Blob([lines.map(line => line.join(",")).join("\n") + "\n"], {type: "text/csv"}))});
  link.click();
}
