// One run: findings, the doctor's report, pictures, histograms, the net, the solver.

import {address, ask, colour, css, duration, make, number, state} from "./common.js";

let shown = null, seen = "";

export async function showRun(place, id, openRun) {
  if (id === null || !state.runs.has(id)) {
    place.replaceChildren(make("p", {class: "empty", text: "There is no run yet."}));
    return;
  }
  let run;
  try {
    run = await ask("run", {run: id});
  } catch (error) {
    place.replaceChildren(make("p", {class: "empty", text: error.message}));
    return;
  }
  const key = JSON.stringify([id, css("--ink"), run.found, run.doctor, run.lines, run.images, run.histograms, run.confusions, run.has_net, run.solver, [...state.runs.keys()].length]);
  if (shown === place && key === seen) {      // only numbers have changed: open parts stay open
    place.querySelector("dl.facts").replaceWith(facts(run));
    return;
  }
  shown = place;
  seen = key;
  place.replaceChildren(...[chooser(run, openRun), findings(run), doctor(run), confusions(run), pictures(run), histograms(run), net(run), texts(run)].filter(Boolean));
}

const card = (title, ...children) => make("section", {class: "card", "aria-label": title}, make("h2", {text: title}), ...children);

function chooser(run, openRun) {
  const options = [...state.runs.values()].map(each => make("option", {value: each.id, text: each.name, selected: each.id === run.id}));
  const select = make("select", {"aria-label": "Run", onchange: event => openRun(Number(event.target.value))}, ...options);
  return make("section", {class: "card", "aria-label": "Figures"}, make("div", {class: "controls"}, select), facts(run));
}

function facts(run) {
  const told = [["state", run.state], ["net", run.net], ["iteration", run.max_iter ? `${number(run.iteration)} of ${number(run.max_iter)}` : number(run.iteration)],
    ["loss", number(run.loss)], ...Object.entries(run.tests).map(([tag, value]) => [tag, number(value)]),
    ["speed", run.speed ? `${number(run.speed)} iterations a second` : ""], ["time left", run.left ? duration(run.left) : ""],
    ["not finite", run.broken === null ? "" : `from iteration ${number(run.broken)} on`], ["file", run.path], ["message", run.messages.join("; ")]];
  return make("dl", {class: "facts"}, ...told.filter(([, text]) => text && text !== "–").flatMap(([name, text]) =>
    [make("dt", {text: name}), make("dd", {text, class: name === "not finite" ? "flag" : name === "message" ? "warned" : ""})]));
}

function findingList(found) {
  return make("ul", {class: "findings"}, ...found.map(finding => make("li", {class: finding.severity ?? ""},
    make("code", {text: finding.code}), finding.iteration === undefined ? " " : ` at iteration ${number(finding.iteration)}: `, finding.message,
    ...[["evidence", finding.evidence], ["change", finding.advice]].filter(([, text]) => text).map(([name, text]) =>
      make("div", {class: "more", text: `${name}: ${text}`})))));
}

function findings(run) {
  const lines = run.lines.length ? make("details", {"aria-label": "Warnings and errors", open: run.lines.length < 6}, make("summary", {text: `${run.lines.length} warnings and errors of the log`}),
    make("pre", {text: run.lines.join("\n"), tabindex: 0})) : null;
  const list = run.found.length ? findingList(run.found) : make("p", {class: "hint", text: "The watcher has found nothing."});
  return card("Findings of the watcher", list, lines);
}

function doctor(run) {
  const place = make("div");
  const reads = make("button", {type: "button", text: "Run the doctor on this log", onclick: async () => {
    reads.disabled = true;
    place.replaceChildren(make("p", {class: "hint", text: "reading…", role: "status"}));
    try {
      const {findings: found} = await ask("doctor", {run: run.id}, {method: "POST"});
      place.replaceChildren(found.length ? findingList(found) : make("p", {text: "The log shows nothing unusual."}));
    } catch (error) {
      place.replaceChildren(make("p", {class: "flag", text: error.message}));
    }
    reads.disabled = false;
  }});
  const isLog = Object.keys(run.images).length + Object.keys(run.histograms).length === 0;
  if (!run.doctor && !isLog) return null;
  const report = run.doctor ? [make("p", {class: "hint", text: run.doctor.file}), run.doctor.findings.length ? findingList(run.doctor.findings) : make("p", {text: "no findings"})] : [];
  return card("The doctor", ...report, isLog ? reads : null, place);
}

function slider(label, count, tell) {
  const input = make("input", {type: "range", min: 0, max: count - 1, value: count - 1, "aria-label": label, hidden: count < 2});
  input.addEventListener("input", () => tell(Number(input.value)));
  return input;
}

function pictures(run) {
  const tags = Object.entries(run.images);
  if (!tags.length) return null;
  return card("Inputs, filters and other pictures", make("div", {class: "pictures"}, ...tags.map(([tag, steps]) => {
    const image = make("img", {loading: "lazy"}), step = make("span", {class: "hint"});
    const tell = index => {
      image.src = address("image", {run: run.id, tag, number: index});
      image.alt = `${tag} at iteration ${steps[index]}`;
      step.textContent = ` iteration ${number(steps[index])}`;
      input.setAttribute("aria-valuetext", `iteration ${steps[index]}`);
    };
    const input = slider(`${tag}: iteration`, steps.length, tell);
    tell(steps.length - 1);
    return make("figure", {}, make("figcaption", {}, make("b", {text: tag}), step), image, input);
  })));
}

function confusions(run) {
  if (!run.confusions.length) return null;
  return card("Confusion matrix", ...run.confusions.map((name, index) => {
    const place = make("div", {class: "scroll confusion", tabindex: 0, role: "region", "aria-label": `Confusion matrix ${name}`});
    if (!name.endsWith(".csv")) {
      place.append(make("img", {src: address("confusion", {run: run.id, number: index}), alt: `Confusion matrix ${name}`}));
    } else {
      ask("confusion", {run: run.id, number: index}).then(found => place.append(matrix(found)), error => { place.textContent = error.message; });
    }
    return make("figure", {}, make("figcaption", {class: "hint", text: name}), place);
  }));
}

// A row for each true class, a column for each predicted class.
function matrix({names, rows}) {
  const head = make("tr", {}, make("th", {text: "is \\ called"}), ...names.map(name => make("th", {scope: "col", text: name})));
  const body = rows.map((row, at) => {
    const total = row.reduce((sum, count) => sum + count, 0) || 1;
    return make("tr", {}, make("th", {scope: "row", text: names[at]}), ...row.map((count, column) => {
      const cell = make("td", {class: "number", text: count || ""});
      const shade = column === at ? "--good" : "--bad";
      if (count) cell.style.background = `color-mix(in srgb, var(${shade}) ${Math.round(10 + 60 * count / total)}%, transparent)`;
      return cell;
    }));
  });
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
}

function histograms(run) {
  const tags = Object.keys(run.histograms);
  if (!tags.length) return null;
  const place = make("div", {class: "pictures"});
  const details = make("details", {"aria-label": "Histograms", ontoggle: () => {
    if (!details.open || place.children.length) return;
    for (const tag of tags) place.append(histogram(run, tag));
  }}, make("summary", {text: `${tags.length} histograms over time`}), place);
  return card("Weights and gradients", details);
}

function histogram(run, tag) {
  const canvas = make("canvas", {role: "img", "aria-label": `Histograms of ${tag}`}), note = make("span", {class: "hint"});
  const figure = make("figure", {}, make("figcaption", {}, make("b", {text: tag}), note), canvas);
  ask("histograms", {run: run.id, tag}).then(found => {
    requestAnimationFrame(() => ridges(canvas, found, colour(run.id)));
    const {steps, edges} = found;
    note.textContent = steps.length ? ` iterations ${number(steps[0])} (back) to ${number(steps.at(-1))}; ${number(edges[0])} to ${number(edges.at(-1))}` : " none";
  }, error => { note.textContent = ` ${error.message}`; });
  return figure;
}

// A ridge for each histogram, the latest in front.
function ridges(canvas, {steps, counts}, stroke) {
  const scale = devicePixelRatio, wide = canvas.clientWidth, high = canvas.clientHeight;
  canvas.width = wide * scale;
  canvas.height = high * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const depth = high * 0.45, tall = high - depth - 8;
  steps.forEach((step, index) => {
    const base = high - 2 - depth + (steps.length > 1 ? depth * index / (steps.length - 1) : depth);
    const most = Math.max(...counts[index], 1e-9);
    pen.beginPath();
    pen.moveTo(0, base);
    counts[index].forEach((count, bin) => pen.lineTo((bin + 0.5) / counts[index].length * wide, base - count / most * tall));
    pen.lineTo(wide, base);
    pen.closePath();
    pen.globalAlpha = 0.9;
    pen.fillStyle = css("--card");
    pen.fill();
    pen.globalAlpha = steps.length > 1 ? 0.25 + 0.75 * index / (steps.length - 1) : 1;
    pen.strokeStyle = stroke;
    pen.stroke();
  });
}

function net(run) {
  if (!run.has_net) return null;
  const place = make("div", {class: "net", hidden: true, tabindex: 0, role: "region", "aria-label": "Picture of the net"});
  const note = make("p", {class: "hint", role: "status"});
  const button = make("button", {type: "button", text: "Draw the net", onclick: async () => {
    button.disabled = true;
    note.textContent = "drawing…";
    try {
      const bytes = await ask("net", {run: run.id});
      const shapes = Object.entries(run.shapes).map(([name, shape]) => `${name} ${shape.join(" x ")}`).join(", ");
      place.replaceChildren(make("img", {src: URL.createObjectURL(new Blob([bytes], {type: "image/svg+xml"})), alt: `The net ${run.net}: ${shapes}`}));
      place.hidden = false;
      note.textContent = "";
    } catch (error) {
      note.textContent = error.message;
      button.disabled = false;
    }
  }});
  return card("The net", button, note, place);
}

function texts(run) {
  return run.solver ? card("The solver", make("pre", {text: run.solver, tabindex: 0})) : null;
}
