// One chart: a quantity of all shown runs. The server sends, for each column of pixels, the least, the largest and the
// mean value; a column is drawn as a line from the least to the largest, so a single high step stays visible.

import {address, ask, colour, css, download, duration, make, number, shownRuns, state} from "./common.js";

const HEIGHT = 230;
export const sync = uPlot.sync("monitor");

export class Chart {
  constructor(tag, zoom) {
    this.tag = tag;
    this.zoom = zoom;                       // called with [low, high], or with null for the whole run
    this.plot = null;
    this.key = "";
    this.runs = [];                         // numbers of the runs that are drawn, a series or two for each
    this.visible = false;
    this.stale = true;
    this.busy = false;
    this.readout = make("p", {class: "readout"});
    this.place = make("div", {class: "plot", tabindex: 0, role: "group", "aria-roledescription": "chart"});
    this.place.addEventListener("keydown", event => this.pressed(event));
    this.place.addEventListener("dblclick", () => this.zoom(null));
    const tools = make("span", {class: "tools"},
      make("button", {type: "button", text: "CSV", "aria-label": `${tag}: all values as a CSV file`, onclick: () => this.table()}),
      make("button", {type: "button", text: "PNG", "aria-label": `${tag}: this chart as a picture`, onclick: () => this.picture()}));
    this.card = make("article", {class: "card", "aria-label": tag},
      make("div", {class: "head"}, make("h3", {text: tag}), tools), this.readout, this.place);
    this.card.chart = this;
  }

  // Fetch and draw, if the chart can be seen; a chart that cannot is drawn when it comes into view.
  async refresh() {
    this.stale = true;
    if (!this.visible || this.busy) return;
    this.busy = true;
    try {
      while (this.stale && this.visible) {
        this.stale = false;
        await this.load();
      }
    } catch (error) {
      this.readout.textContent = error.message;
    } finally {
      this.busy = false;
    }
  }

  async load() {
    const runs = shownRuns().filter(run => run.tags.includes(this.tag)).map(run => run.id);
    const [low, high] = state.window || [null, null];
    const columns = Math.max(100, Math.round(this.place.clientWidth - 60));
    const bytes = await ask("curves", {tag: this.tag, axis: state.axis, low, high, columns, runs: runs.join(",")});
    const length = new DataView(bytes).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length)));
    const values = new Float32Array(bytes, 4 + length);
    this.header = header;
    this.draw(header, values);
  }

  draw(header, values) {
    const {columns, runs, x0, width} = header;
    const xs = new Float64Array(2 * columns);
    for (let i = 0; i < columns; i++) {
      xs[2 * i] = x0 + i * width;
      xs[2 * i + 1] = x0 + (i + 0.5) * width;
    }
    const data = [xs];
    runs.forEach((run, index) => {
      const at = 3 * columns * index;
      data.push(zigzag(values.subarray(at, at + columns), values.subarray(at + columns, at + 2 * columns)));
      if (state.smoothing > 0) data.push(smooth(values.subarray(at + 2 * columns, at + 3 * columns)));
    });
    const key = JSON.stringify([runs, state.smoothing > 0, state.scale, state.axis, css("--ink")]);
    this.runs = runs;
    if (key !== this.key) this.build(data, key);
    else this.plot.setData(data, false);
    const [low, high] = state.window || header.extent;
    this.plot.batch(() => {
      this.plot.setScale("x", {min: low, max: high > low ? high : low + 1});
    });
    this.plot.redraw();
    this.say(null);
    this.describe();
  }

  build(data, key) {
    this.key = key;
    this.plot?.destroy();
    const smoothed = state.smoothing > 0;
    const series = [{}];
    for (const run of this.runs) {
      const name = state.runs.get(run)?.name ?? String(run);
      const main = {label: name, stroke: colour(run), width: this.runs.length > 40 ? 1 : 1.5, spanGaps: true, points: {show: (plot, at) => count(plot.data[at]) < 60, size: 5, fill: colour(run)}};
      if (smoothed) series.push({...main, width: 1, alpha: 0.3}, {...main, width: 2});
      else series.push(main);
    }
    const axis = {stroke: css("--soft"), grid: {stroke: css("--grid"), width: 1}, ticks: {show: false}, font: "12px system-ui"};
    const time = state.axis === "seconds";
    const options = {
      width: this.place.clientWidth || 400, height: HEIGHT, series, legend: {show: false},
      cursor: {sync: {key: sync.key, setSeries: false}, focus: {prox: 24}, drag: {x: true, y: false, setScale: false},
               dataIdx: (plot, number, index) => nearest(plot.data[number], index), points: {size: 7}},
      focus: {alpha: this.runs.length > 1 ? 0.35 : 1},
      scales: {x: {time: false, auto: false}, y: {distr: state.scale === "log" ? 3 : 1, range: (plot, low, high) => this.range(low, high)}},
      padding: [8, 14, 0, 0],
      axes: [{...axis, size: 28, values: (plot, ticks) => ticks.map(tick => time ? duration(tick) : short(tick))},
             {...axis, size: 58, values: (plot, ticks) => ticks.map(tick => tick === null ? "" : short(tick))}],
      hooks: {
        setSelect: [plot => this.selected(plot)],
        setCursor: [plot => this.say(plot.cursor.idx)],
      },
    };
    this.place.replaceChildren();
    this.plot = new uPlot(options, data, this.place);
  }

  range(low, high) {
    if (low === null || high === null) return state.scale === "log" ? [0.1, 1] : [0, 1];
    if (state.scale === "log") return uPlot.rangeLog(low, high > low ? high : low * 1.01, 10, false);
    if (state.scale === "inner" && this.plot) {
      const all = this.plot.data.slice(1).flatMap(values => values.filter(value => value !== null)).sort((a, b) => a - b);
      if (all.length) [low, high] = [all[Math.floor(all.length * 0.01)], all[Math.ceil(all.length * 0.98) - 1]];
    }
    const least = Math.max(Math.abs(low), Math.abs(high)) * 1e-6 || 1e-12;   // a curve that is flat stays in the middle
    if (high - low < least) return [low - (0.2 * Math.abs(low) || 1), high + (0.2 * Math.abs(high) || 1)];
    return uPlot.rangeNum(low, high, 0.08, true);
  }

  selected(plot) {
    const {left, width} = plot.select;
    if (width > 3) this.zoom([plot.posToVal(left, "x"), plot.posToVal(left + width, "x")]);
    if (width > 0) plot.setSelect({left: 0, top: 0, width: 0, height: 0}, false);
  }

  // The values at the cursor: of all runs where they are few, of the one that is nearest otherwise.
  say(index) {
    const step = state.smoothing > 0 ? 2 : 1;
    const parts = [];
    if (index === null || index === undefined || !this.plot) {
      const broken = this.runs.map(run => state.runs.get(run)).filter(run => run && run.broken !== null && this.tag === "loss");
      if (broken.length) parts.push(make("span", {class: "flag", text: `not finite: ${broken.slice(0, 3).map(run => `${run.name} from iteration ${number(run.broken)}`).join(", ")}${broken.length > 3 ? ` and ${broken.length - 3} more` : ""}`}));
    } else {
      const x = this.plot.data[0][index];
      parts.push(state.axis === "seconds" ? duration(x) : `iteration ${number(Math.floor(x))}`);
      const focused = this.plot.series.findIndex((series, at) => at > 0 && series._focus);
      this.runs.forEach((run, at) => {
        const column = 1 + at * step + step - 1;
        const mine = focused > 0 && Math.floor((focused - 1) / step) === at;
        if (this.runs.length > 4 && !mine) return;
        const values = this.plot.data[column];
        const value = values[nearest(values, index)];
        const swatch = make("i");
        swatch.style.background = colour(run);
        parts.push(swatch, `${state.runs.get(run)?.name} `, make("b", {text: number(value)}));
      });
    }
    this.readout.replaceChildren(...parts);
  }

  describe() {
    const told = this.runs.slice(0, 12).map(run => {
      const row = state.runs.get(run);
      const value = this.tag === "loss" ? row?.loss : row?.tests?.[this.tag];
      return `${row?.name}${value === undefined || value === null ? "" : ` ${number(value)}`}`;
    });
    const more = this.runs.length > 12 ? ` and ${this.runs.length - 12} more` : "";
    const [low, high] = state.window || this.header.extent;
    const span = state.axis === "seconds" ? `${duration(low)} to ${duration(high)}` : `iterations ${number(Math.round(low))} to ${number(Math.round(high))}`;
    this.place.setAttribute("aria-label", `${this.tag}, ${span}; ${this.runs.length === 1 ? "1 run" : `${this.runs.length} runs`}: ${told.join(", ")}${more}. Arrow keys move, plus and minus zoom, Home shows the whole run.`);
  }

  pressed(event) {
    if (!this.header || event.ctrlKey || event.metaKey || event.altKey) return;
    const [low, high] = state.window || this.header.extent;
    const span = high - low, middle = (low + high) / 2;
    const moves = {
      "ArrowLeft": [low - span / 4, high - span / 4], "ArrowRight": [low + span / 4, high + span / 4],
      "+": [middle - span / 4, middle + span / 4], "=": [middle - span / 4, middle + span / 4],
      "-": [middle - span, middle + span], "Home": null, "0": null, "Escape": null,
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    this.zoom(moves[event.key] && within(moves[event.key], this.header.extent));
  }

  table() {
    const runs = shownRuns().filter(run => run.tags.includes(this.tag)).map(run => run.id).join(",");
    download(`${fileName(this.tag)}.csv`, address("table", {tag: this.tag, runs}));
  }

  picture() {
    const source = this.plot.ctx.canvas;
    const scale = source.width / this.place.clientWidth;
    const names = this.runs.slice(0, 12);
    const canvas = make("canvas", {width: source.width, height: source.height + (30 + 16 * names.length) * scale});
    const pen = canvas.getContext("2d");
    pen.fillStyle = css("--card");
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(source, 0, 26 * scale);
    pen.scale(scale, scale);
    pen.font = "600 14px system-ui";
    pen.fillStyle = css("--ink");
    pen.fillText(this.tag, 12, 18);
    pen.font = "12px system-ui";
    names.forEach((run, index) => {
      const y = source.height / scale + 40 + 16 * index - 4;
      pen.fillStyle = colour(run);
      pen.fillRect(12, y - 9, 10, 10);
      pen.fillStyle = css("--ink");
      pen.fillText(state.runs.get(run)?.name ?? "", 28, y);
    });
    download(`${fileName(this.tag)}.png`, canvas.toDataURL("image/png"));
  }

  resize() {
    if (this.plot && this.place.clientWidth) {
      this.plot.setSize({width: this.place.clientWidth, height: HEIGHT});
      this.refresh();
    }
  }
}

// Least and largest value of each column, one after the other; null where a column is empty or both are the same.
function zigzag(low, high) {
  const values = new Array(2 * low.length).fill(null);
  const positive = state.scale === "log";
  for (let i = 0; i < low.length; i++) {
    if (Number.isNaN(low[i]) || positive && high[i] <= 0) continue;
    const up = i === 0 || !(values[2 * i - 1] > high[i]);
    const least = positive && low[i] <= 0 ? high[i] : low[i];
    values[2 * i] = up ? least : high[i];
    if (least !== high[i]) values[2 * i + 1] = up ? high[i] : least;
  }
  return values;
}

// An exponential mean over columns, corrected at its beginning.
function smooth(means) {
  const values = new Array(2 * means.length).fill(null);
  let sum = 0, weight = 0;
  for (let i = 0; i < means.length; i++) {
    if (Number.isNaN(means[i])) continue;
    sum = state.smoothing * sum + (1 - state.smoothing) * means[i];
    weight = state.smoothing * weight + 1 - state.smoothing;
    values[2 * i] = state.scale === "log" && sum <= 0 ? null : sum / weight;
  }
  return values;
}

const count = values => values.reduce((total, value) => total + (value === null ? 0 : 1), 0);

function nearest(values, index) {
  for (let away = 0; away < 60; away++) {
    if (values[index - away] !== null && values[index - away] !== undefined) return index - away;
    if (values[index + away] !== null && values[index + away] !== undefined) return index + away;
  }
  return index;
}

function within([low, high], [first, last]) {
  const span = Math.min(high - low, last - first);
  const begin = Math.min(Math.max(low, first), last - span);
  return span >= last - first ? null : [begin, begin + span];
}

function short(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(4))}M`;
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(4))}k`;
  if (size > 0 && size < 1e-3) return value.toExponential(1);
  return String(Number(value.toPrecision(6)));
}

const fileName = tag => tag.replace(/[^\w.-]+/g, "_");
