"use strict";
// The report: curves, tables to sort, confusion matrix, reliability diagrams and clips.

const report = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

/** Make an element with attributes and children; the name "svg:path" makes one of SVG. */
function make(name, attributes = {}, ...children) {
  const element = name.startsWith("svg:") ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Write a number with 4 significant digits. */
function shown(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(2).replace("e+", "e");
  return String(Number(value.toPrecision(4)));
}

/** Return round numbers between two ends. */
function ticks(low, high, count) {
  const step = 10 ** Math.floor(Math.log10((high - low) / count));
  const wide = [1, 2, 5, 10].map((factor) => factor * step).find((each) => (high - low) / each <= count);
  const first = Math.ceil(low / wide - 1e-9);
  return Array.from({ length: Math.floor(high / wide + 1e-9) - first + 1 }, (_, i) => Number(((first + i) * wide).toPrecision(12)));
}

/** Return powers of ten between two ends, with 2 and 5 between them where there are few. */
function logTicks(low, high) {
  const found = [];
  const factors = Math.log10(high / low) > 2 ? [1] : [1, 2, 5];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const factor of factors) {
      const value = Number((factor * 10 ** power).toPrecision(6));
      if (value >= low && value <= high) found.push(value);
    }
  }
  const every = Math.ceil(found.length / 6);
  return found.filter((_, i) => i % every === 0);
}

/** A chart of one metric over steps, for all runs that are shown. */
class Chart {
  constructor(name, { title, log }, group) {
    this.name = name;
    this.group = group;
    this.curves = [];
    report.runs.forEach((run, number) => {
      for (const split of ["train", "val"]) {
        const [steps, values] = run.curves[name][split];
        if (steps.length) this.curves.push({ number, split, steps, values, run: run.name });
      }
    });
    const values = this.curves.flatMap((curve) => curve.values);
    const [least, most] = [values, values].map((all, i) => all.reduce((a, b) => (i ? Math.max(a, b) : Math.min(a, b)), all[0]));
    this.mayLog = least > 0 && most > least;
    this.log = log && this.mayLog && most > 20 * least;
    this.heading = make("h3", {}, make("span", {}, title));
    if (this.mayLog && log) {
      const button = make("button", { type: "button", "aria-pressed": this.log, "aria-label": `Logarithmic scale of ${title}` }, "log");
      button.addEventListener("click", () => {
        this.log = !this.log;
        button.setAttribute("aria-pressed", this.log);
        this.draw();
      });
      this.heading.append(button);
    }
    this.svg = make("svg:svg", { role: "img", tabindex: "0", "aria-label": `${title} over steps; the arrow keys read the values` });
    this.readout = make("table", { class: "readout" });
    this.element = make("div", { class: `chart${["loss", "top1"].includes(name) ? " large" : ""}`, "data-metric": name }, this.heading, this.svg, this.readout);
    this.svg.addEventListener("pointermove", (event) => group.read(this.stepAt(event.clientX)));
    this.svg.addEventListener("pointerleave", () => group.read(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
    this.svg.addEventListener("focus", () => this.readout.setAttribute("aria-live", "polite"));
    this.svg.addEventListener("blur", () => this.readout.removeAttribute("aria-live"));
  }

  visible() {
    return this.curves.filter((curve) => this.group.shown[curve.number]);
  }

  key(event) {
    const steps = this.group.steps();
    const at = this.group.step === null ? steps.length - 1 : steps.indexOf(this.group.nearest(steps, this.group.step));
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, PageUp: at + 10, PageDown: at - 10, Home: 0, End: steps.length - 1 }[event.key];
    if (event.key === "Escape") this.group.read(null);
    if (to === undefined) return;
    event.preventDefault();
    this.group.read(steps[Math.min(Math.max(to, 0), steps.length - 1)]);
  }

  stepAt(clientX) {
    const box = this.svg.getBoundingClientRect();
    const share = (clientX - box.left - this.left) / (this.width - this.left - this.rightEdge);
    return Math.min(Math.max(share, 0), 1) * this.group.last;
  }

  x(step) {
    return this.left + (step / this.group.last) * (this.width - this.left - this.rightEdge);
  }

  y(value) {
    const [low, high] = this.range;
    const share = this.log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
    return this.height - this.bottom - share * (this.height - this.bottom - this.top);
  }

  draw() {
    const large = this.element.classList.contains("large");
    Object.assign(this, { width: this.svg.clientWidth || 320, height: large ? 240 : 170, left: 44, rightEdge: 8, top: 8, bottom: 22 });
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.svg.style.height = `${this.height}px`;
    const values = this.visible().flatMap((curve) => curve.values);
    let low = values.reduce((a, b) => Math.min(a, b), Infinity);
    let high = values.reduce((a, b) => Math.max(a, b), -Infinity);
    if (!values.length) [low, high] = [0, 1];
    if (!this.log) low = low > 0 ? 0 : low;
    if (high === low) high = low + (Math.abs(low) || 1);
    // Room for circles at the ends.
    if (this.log) [low, high] = [low / (high / low) ** 0.05, high * (high / low) ** 0.05];
    else high += 0.04 * (high - low);
    this.range = [low, high];
    const parts = [];
    for (const value of this.log ? logTicks(low, high) : ticks(low, high, large ? 6 : 5)) {
      const y = this.y(value);
      parts.push(make("svg:line", { class: "grid", x1: this.left, x2: this.width - this.rightEdge, y1: y, y2: y, "data-y": value }));
      parts.push(make("svg:text", { x: this.left - 6, y: y + 4, "text-anchor": "end" }, shown(value)));
    }
    for (const step of ticks(0, this.group.last, this.width > 420 ? 6 : 3)) {
      const x = this.x(step);
      parts.push(make("svg:line", { class: "grid", x1: x, x2: x, y1: this.height - this.bottom, y2: this.height - this.bottom + 4, "data-x": step }));
      parts.push(make("svg:text", { x, y: this.height - 6, "text-anchor": "middle" }, step.toLocaleString("en")));
    }
    for (const curve of this.visible()) {
      const points = curve.steps.map((step, i) => `${this.x(step).toFixed(2)},${this.y(curve.values[i]).toFixed(2)}`);
      const series = `s${(curve.number % 8) + 1}`;
      if (curve.split === "train") {
        parts.push(make("svg:path", { class: `line ${series}`, d: `M${points.join("L")}`, "data-run": curve.number }));
      } else {
        for (const point of points) {
          const [cx, cy] = point.split(",");
          parts.push(make("svg:circle", { class: `dot ${series}`, cx, cy, r: points.length > 60 ? 1.5 : 3.2, "data-run": curve.number }));
        }
      }
    }
    this.cross = make("svg:line", { class: "cross", y1: this.top, y2: this.height - this.bottom, visibility: "hidden" });
    this.svg.replaceChildren(...parts, this.cross);
    this.read();
  }

  /** Show the values at the step that is read, or the last ones. */
  read() {
    const step = this.group.step;
    this.cross.setAttribute("visibility", step === null ? "hidden" : "visible");
    if (step !== null) ["x1", "x2"].forEach((name) => this.cross.setAttribute(name, this.x(step)));
    const splits = ["train", "val"].filter((split) => this.curves.some((curve) => curve.split === split));
    const rows = report.runs.map((run, number) => {
      const own = this.visible().filter((curve) => curve.number === number);
      if (!own.length) return "";
      const cells = splits.map((split) => {
        const curve = own.find((each) => each.split === split);
        if (!curve) return make("td", {}, "–");
        const near = step === null ? curve.steps.length - 1 : curve.steps.indexOf(this.group.nearest(curve.steps, step));
        return make("td", { title: `at step ${curve.steps[near]}` }, shown(curve.values[near]));
      });
      const swatch = make("svg:svg", { class: `swatch s${(number % 8) + 1}`, width: 18, height: 8, viewBox: "0 0 26 8", "aria-hidden": "true" });
      swatch.append(make("svg:path", { d: "M1 4h24" }));
      return make("tr", {}, make("th", { scope: "row" }, swatch, ` ${run.name}`), ...cells);
    });
    const at = step === null ? "Last values" : `Step ${step.toLocaleString("en")}`;
    const head = make("tr", {}, make("th", { scope: "col" }, at), ...splits.map((split) => make("th", { scope: "col" }, split)));
    this.readout.replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows));
  }
}

/** All charts: they share the runs shown, the range of steps and the step that is read. */
class Charts {
  constructor() {
    this.shown = report.runs.map(() => true);
    this.step = null;
    this.known = null;
    this.charts = Object.entries(report.charts).map(([name, options]) => new Chart(name, options, this)).filter((chart) => chart.curves.length);
    this.last = this.charts.flatMap((chart) => chart.curves.map((curve) => curve.steps.at(-1))).reduce((a, b) => Math.max(a, b), 1);
    const empty = make("p", { class: "note" }, "No run has a metrics.jsonl with curves.");
    byId("charts").replaceChildren(...(this.charts.length ? this.charts.map((chart) => chart.element) : [empty]));
    const draw = () => this.charts.forEach((chart) => chart.draw());
    byId("runs").addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      const number = Number(button.dataset.run);
      this.shown[number] = !this.shown[number];
      this.known = null;
      button.setAttribute("aria-pressed", this.shown[number]);
      draw();
    });
    new ResizeObserver(draw).observe(byId("charts"));
    draw();
  }

  /** Return all steps that have a value of a run that is shown, in order. */
  steps() {
    if (!this.known) {
      const all = new Set(this.charts.flatMap((chart) => chart.visible().flatMap((curve) => curve.steps)));
      this.known = [...all].sort((a, b) => a - b);
    }
    return this.known;
  }

  nearest(steps, step) {
    let [low, high] = [0, steps.length - 1];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (steps[middle] <= step) low = middle;
      else high = middle;
    }
    return step - steps[low] <= steps[high] - step ? steps[low] : steps[high];
  }

  read(step) {
    this.step = step === null || !this.steps().length ? null : this.nearest(this.steps(), step);
    this.charts.forEach((chart) => chart.read());
  }
}

const charts = new Charts();

// Tables to sort: numbers fall at first, names rise.
for (const table of document.querySelectorAll(".sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const number = heading.classList.contains("number");
      const before = heading.getAttribute("aria-sort");
      const order = before === "none" ? (number ? "descending" : "ascending") : before === "ascending" ? "descending" : "ascending";
      headings.forEach((each) => each.setAttribute("aria-sort", each === heading ? order : "none"));
      const sign = order === "ascending" ? 1 : -1;
      const key = (row) => row.cells[column].dataset.value;
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => sign * (number ? key(a) - key(b) : key(a).localeCompare(key(b))));
      table.tBodies[0].append(...rows);
    });
  });
}

/** The confusion matrix on its canvas. */
class Matrix {
  constructor(labels, predicted, confidence, ids) {
    Object.assign(this, { labels, predicted, confidence, ids, cell: null, count: report.classes.length });
    this.canvas = byId("matrix");
    this.select = byId("confusion-run");
    this.select.addEventListener("change", () => this.choose(Number(this.select.value)));
    this.canvas.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.addEventListener("pointerleave", () => this.at(null));
    this.canvas.addEventListener("click", (event) => {
      this.point(event);
      this.list();
    });
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    document.querySelectorAll(".confused button").forEach((button) => {
      button.addEventListener("click", () => {
        this.at(button.dataset.cell.split(",").map(Number));
        this.list();
      });
    });
    onTheme(() => {
      this.paint();
      this.draw();
    });
    this.choose(Number(this.select.value));
    new ResizeObserver(() => this.draw()).observe(this.canvas.parentElement);
  }

  choose(run) {
    this.run = run;
    this.cells = new Uint32Array(this.count ** 2);
    this.totals = new Uint32Array(this.count);
    this.labels.forEach((label, i) => {
      this.cells[label * this.count + this.predicted[run][i]]++;
      this.totals[label]++;
    });
    document.querySelectorAll(".confused").forEach((each) => { each.hidden = Number(each.dataset.run) !== run; });
    byId("listed").replaceChildren();
    this.canvas.setAttribute("aria-label", `Confusion matrix of ${report.runs[run].name}, ${this.count} classes; the arrow keys read a cell`);
    this.paint();
    this.draw();
    this.at(null);
  }

  /** Paint one pixel per cell; drawing enlarges them. */
  paint() {
    const [empty, right, wrong] = ["--sunken", "--right", "--wrong"].map(rgb);
    const image = new ImageData(this.count, this.count);
    this.cells.forEach((clips, at) => {
      const [row, column] = [Math.floor(at / this.count), at % this.count];
      const strength = clips ? 0.15 + 0.85 * Math.sqrt(clips / this.totals[row]) : 0;
      const full = row === column ? right : wrong;
      empty.forEach((part, i) => { image.data[4 * at + i] = Math.round(part + (full[i] - part) * strength); });
      image.data[4 * at + 3] = 255;
    });
    this.painted = make("canvas", { width: this.count, height: this.count });
    this.painted.getContext("2d").putImageData(image, 0, 0);
  }

  draw() {
    const width = Math.min(this.canvas.parentElement.clientWidth, 544);
    const context = this.canvas.getContext("2d");
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    context.font = font;
    const longest = Math.ceil(report.classes.reduce((most, name) => Math.max(most, context.measureText(name).width), 0));
    this.margin = Math.min(longest + 8, 150);
    this.size = Math.floor((width - this.margin) / this.count);
    const named = this.size >= 15;
    if (!named) {
      this.margin = 0;
      this.size = Math.max(1, Math.floor(width / this.count));
    }
    const side = this.size * this.count;
    const below = named ? Math.min(longest, 150) * 0.75 + 14 : 0;
    const scale = devicePixelRatio || 1;
    Object.assign(this.canvas, { width: (this.margin + side) * scale, height: (side + below) * scale });
    this.canvas.style.width = `${this.margin + side}px`;
    context.scale(scale, scale);
    context.imageSmoothingEnabled = false;
    context.drawImage(this.painted, this.margin, 0, side, side);
    if (this.size >= 8) {
      context.fillStyle = `rgb(${rgb("--paper")})`;
      for (let i = 1; i <= this.count; i++) {
        context.fillRect(this.margin + i * this.size - 1, 0, 1, side);
        context.fillRect(this.margin, i * this.size - 1, side, 1);
      }
    }
    if (named) this.names(context, font, side);
    if (this.cell) {
      context.strokeStyle = `rgb(${rgb("--ink")})`;
      context.lineWidth = 2;
      context.strokeRect(this.margin + this.cell[1] * this.size, this.cell[0] * this.size, this.size - 1, this.size - 1);
    }
  }

  names(context, font, side) {
    Object.assign(context, { fillStyle: `rgb(${rgb("--muted")})`, font, textAlign: "right", textBaseline: "middle" });
    report.classes.forEach((name, i) => {
      let text = name;
      while (context.measureText(text).width > 142) text = `${text.slice(0, -2)}…`;
      context.fillText(text, this.margin - 8, (i + 0.5) * this.size);
      context.save();
      context.translate(this.margin + (i + 0.5) * this.size, side + 8);
      context.rotate(-Math.PI / 4);
      context.fillText(text, 0, 0);
      context.restore();
    });
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    const scale = (this.margin + this.size * this.count) / box.width;
    const column = Math.floor(((event.clientX - box.left) * scale - this.margin) / this.size);
    const row = Math.floor(((event.clientY - box.top) * scale) / this.size);
    const inside = [row, column].every((each) => each >= 0 && each < this.count);
    this.at(inside ? [row, column] : null);
  }

  at(cell) {
    if (String(cell) === String(this.cell)) return;
    this.cell = cell;
    this.draw();
    if (!cell) return;
    const [row, column] = cell;
    const [clips, total] = [this.cells[row * this.count + column], this.totals[row]];
    byId("cell").textContent = `${report.classes[row]}, predicted as ${report.classes[column]}: ${clips} of ${total} clips.`;
  }

  key(event) {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.list();
    }
    if (!moves[event.key]) return;
    event.preventDefault();
    const [row, column] = this.cell || [0, 0];
    const inside = (value) => Math.min(Math.max(value, 0), this.count - 1);
    this.at(this.cell ? [inside(row + moves[event.key][0]), inside(column + moves[event.key][1])] : [0, 0]);
  }

  list() {
    if (!this.cell) return;
    const [row, column] = this.cell;
    const confidence = this.confidence[this.run];
    const found = [...this.labels.keys()].filter((i) => this.labels[i] === row && this.predicted[this.run][i] === column);
    if (confidence) found.sort((a, b) => confidence[b] - confidence[a]);
    const most = 200;
    const items = found.slice(0, most).map((i) => {
      const name = this.ids ? this.ids[i] : `clip ${i}`;
      return make("li", {}, make("code", {}, name), confidence ? ` ${(100 * confidence[i]).toFixed(1)} %` : "");
    });
    const title = `${found.length} clips of ${report.classes[row]} predicted as ${report.classes[column]}`;
    const parts = [make("h3", {}, title), make("ol", { tabindex: "0", "aria-label": title }, ...items)];
    if (found.length > most) parts.push(make("p", { class: "note" }, `The first ${most} by confidence.`));
    byId("listed").replaceChildren(...parts);
  }
}

let matrix = null;

/** Read the clips' labels, predictions and names, and show the matrix. */
async function showMatrix() {
  const read = async (text) => (text ? (await unpack(text)).data : null);
  const each = (name) => Promise.all(report.runs.map((run) => read(run[name])));
  const [labels, ids, predicted, confidence] = [await read(report.labels), await read(report.ids), await each("predicted"), await each("confidence")];
  matrix = new Matrix(labels, predicted, confidence, ids && new TextDecoder().decode(ids).split("\n"));
}

/** Draw the reliability diagram of a run. */
function diagram(run) {
  const [counts, confidence, accuracy] = run.bins;
  const [side, left, top, gap] = [200, 34, 8, 26];
  const [x, y] = [(share) => left + share * side, (share) => top + (1 - share) * side];
  const most = Math.max(...counts);
  const parts = [make("svg:rect", { class: "frame", x: left, y: top, width: side, height: side })];
  counts.forEach((count, i) => {
    const [from, to] = [i / counts.length, (i + 1) / counts.length];
    const box = { x: x(from) + 0.5, width: x(to) - x(from) - 1 };
    if (count) {
      const clips = `${count} clips, confidence ${(100 * confidence[i]).toFixed(1)} %, accuracy ${(100 * accuracy[i]).toFixed(1)} %`;
      const bar = make("svg:rect", { class: "accuracy", ...box, y: y(accuracy[i]), height: accuracy[i] * side, "data-bin": i });
      bar.append(make("svg:title", {}, clips));
      const [high, low] = [Math.max(accuracy[i], confidence[i]), Math.min(accuracy[i], confidence[i])];
      parts.push(bar, make("svg:rect", { class: "gap", ...box, y: y(high), height: (high - low) * side }));
    }
    parts.push(make("svg:rect", { class: "count", ...box, y: top + side + gap + 40 * (1 - count / most), height: (40 * count) / most }));
  });
  parts.push(make("svg:line", { class: "diagonal", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }));
  for (const share of [0, 0.5, 1]) {
    parts.push(make("svg:text", { x: left - 6, y: y(share) + 4, "text-anchor": "end" }, 100 * share));
    parts.push(make("svg:text", { x: x(share), y: top + side + 16, "text-anchor": "middle" }, 100 * share));
  }
  parts.push(make("svg:text", { x: left - 6, y: top + side + gap + 10, "text-anchor": "end" }, most));
  const error = (100 * run.error).toFixed(1);
  const height = top + side + gap + 44;
  const svg = make("svg:svg", { viewBox: `0 0 ${left + side + 14} ${height}`, role: "img", "aria-label": `Reliability of ${run.name}: calibration error ${error} %` }, ...parts);
  return make("figure", {}, make("h3", {}, run.name), svg, make("figcaption", {}, `Calibration error ${error} %`));
}

/** The chosen clips as animations with overlays; all move together. */
class Clips {
  constructor() {
    this.frame = 0;
    this.timer = null;
    byId("play").addEventListener("click", () => this.play(this.timer === null));
    byId("frame").addEventListener("input", () => {
      this.play(false);
      this.frame = Number(byId("frame").value);
      this.draw();
    });
    byId("overlay").addEventListener("change", () => this.draw());
    byId("opacity").addEventListener("input", () => this.draw());
    byId("clips-run").addEventListener("change", () => this.choose());
    this.choose();
    if (matchMedia("(prefers-reduced-motion: no-preference)").matches) this.play(true);
  }

  play(on) {
    clearInterval(this.timer);
    this.timer = on ? setInterval(() => {
      this.frame = (this.frame + 1) % this.frames;
      byId("frame").value = this.frame;
      this.draw();
    }, 200) : null;
    byId("play").textContent = on ? "Pause" : "Play";
    byId("play").setAttribute("aria-pressed", on);
  }

  async choose() {
    const run = report.runs[Number(byId("clips-run").value)];
    const picture = async (url) => {
      if (!url) return null;
      const image = new Image();
      image.src = url;
      await image.decode();
      return image;
    };
    const cards = await Promise.all(run.clips.map(async (clip) => ({
      clip,
      frames: await picture(clip.frames),
      displacement: await picture(clip.displacement),
      activation: await picture(clip.activation),
    })));
    this.cards = cards.map((card) => ({ ...card, ...this.card(card.clip) }));
    for (const right of [true, false]) {
      const chosen = this.cards.filter((card) => card.clip.right === right).map((card) => card.element);
      byId(right ? "right-clips" : "wrong-clips").replaceChildren(...(chosen.length ? chosen : [make("p", { class: "note" }, right ? "No clip is right." : "No clip is wrong.")]));
    }
    this.frames = Math.max(...run.clips.map((clip) => clip.count));
    byId("frame").max = this.frames - 1;
    const option = byId("overlay").querySelector("[value=displacement]");
    option.disabled = !run.clips.some((clip) => clip.displacement);
    if (option.disabled && byId("overlay").value === "displacement") byId("overlay").value = "";
    if (byId("longest")) byId("longest").textContent = shown(run.clips[0].longest || 0);
    this.draw();
  }

  card(clip) {
    const canvas = make("canvas", { width: clip.size[1] * 2, height: clip.size[0] * 2, role: "img", "aria-label": `Clip ${clip.id}: ${clip.label}, predicted ${clip.predicted}` });
    const verdict = clip.right
      ? [make("b", { class: "right" }, `✓ ${clip.label}`)]
      : [make("b", { class: "wrong" }, `✗ ${clip.predicted}`), make("br"), `labelled ${clip.label}`];
    const bars = clip.best.map(([name, share]) => {
      const bar = make("i");
      bar.style.width = `${100 * share}%`;
      const kind = name === clip.label ? "right" : name === clip.predicted ? "wrong" : "other";
      return [make("dt", { title: name }, name), make("dd", { class: kind }, make("span", { class: "meter" }, bar)), make("dd", {}, `${(100 * share).toFixed(1)} %`)];
    });
    const element = make("article", { class: "card" }, canvas, make("p", {}, ...verdict), make("dl", {}, ...bars.flat()), make("p", { class: "id" }, clip.id));
    return { canvas, element };
  }

  draw() {
    const overlay = byId("overlay").value;
    document.querySelectorAll(".legend").forEach((legend) => { legend.hidden = legend.dataset.overlay !== overlay; });
    for (const { clip, frames, canvas, ...overlays } of this.cards || []) {
      const context = canvas.getContext("2d");
      const at = Math.min(this.frame, clip.count - 1);
      const part = (image, count, index) => {
        const width = image.naturalWidth / count;
        context.drawImage(image, index * width, 0, width, image.naturalHeight, 0, 0, canvas.width, canvas.height);
      };
      context.globalAlpha = 1;
      context.imageSmoothingEnabled = true;
      // Gray, so that all colours are those of the overlay.
      context.filter = overlay && overlays[overlay] ? "grayscale(1)" : "none";
      part(frames, clip.count, at);
      context.filter = "none";
      if (!overlay || !overlays[overlay]) continue;
      const count = clip.counts[overlay];
      const index = Math.floor((at * count) / clip.count);
      context.globalAlpha = Number(byId("opacity").value) / 100;
      context.imageSmoothingEnabled = overlay === "activation";
      part(overlays[overlay], count, index);
    }
  }
}

if (byId("matrix")) showMatrix();
if (byId("bins")) byId("bins").append(...report.runs.filter((run) => run.bins).map(diagram));
if (byId("clips-run")) new Clips();
