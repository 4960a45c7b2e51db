// The panel of one network: frame, film strip, best classes and the comparison of a cell, kept up to date with the state.

const BEST = 5;
const signed = (number, digits) => {
  const rounded = Math.abs(number).toFixed(digits);
  return `${number < 0 && Number(rounded) > 0 ? "−" : "+"}${rounded}`;
};
const percent = (number) => `${(100 * number).toFixed(1)} %`;

class Panel {
  /** state: {time, cell, chosen, frames}; change(values) updates it and every panel. */
  constructor(article, seen, common, truth, longest, state, change) {
    Object.assign(this, { article, seen, common, truth, state, change });
    this.parts = (selector) => article.querySelector(selector);
    this.stage = this.parts(".stage");
    this.classes = this.bestClasses();
    article.classList.toggle("without-motion", !seen.motion);
    this.parts(".of-displacement .high").textContent = longest.toFixed(1);
    const [low, high] = seen.motion?.confidences || [0, 1];
    this.parts(".of-confidence .low").textContent = low.toFixed(2);
    this.parts(".of-confidence .high").textContent = high.toFixed(2);
    this.listen();
    this.update();
  }

  /** Frame of this network at the common time. */
  get frame() {
    return this.seen.frameAt(this.state.time, this.state.frames);
  }

  get chosen() {
    return this.state.chosen ?? this.seen.best;
  }

  bestClasses() {
    const order = [...this.seen.probabilities.keys()].sort(
      (a, b) => this.seen.probabilities[b] - this.seen.probabilities[a] || a - b);
    const best = order.slice(0, BEST);
    if (this.truth !== null && !best.includes(this.truth)) best.push(this.truth);
    return best;
  }

  kindOf(label) {
    if (this.truth === null) return label === this.seen.best ? "best" : "";
    return label === this.truth ? "right" : label === this.seen.best ? "wrong" : "";
  }

  /** Style of a class in bars and lines: its kind, or a colour of its own. */
  toneOf(label) {
    return this.kindOf(label) || `s${1 + this.classes.indexOf(label)}`;
  }

  listen() {
    const cellOf = (event, box) => {
      const { left, top, width, height } = box.getBoundingClientRect();
      return { x: (event.clientX - left) / width, y: (event.clientY - top) / height };
    };
    const inside = ({ x, y }) => x >= 0 && x < 1 && y >= 0 && y < 1;
    this.stage.addEventListener("pointerdown", (event) => {
      const cell = cellOf(event, this.stage);
      if (inside(cell)) this.change({ cell });
    });
    this.stage.addEventListener("pointermove", (event) => {
      const cell = cellOf(event, this.stage);
      if (inside(cell)) this.tell(cell);
    });
    this.stage.addEventListener("pointerleave", () => this.tell(this.state.cell));
    this.stage.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (!move) return;
      event.preventDefault();
      const [rows, columns] = this.seen.grid;
      const [row, column] = Seen.position(this.state.cell, rows, columns);
      const clip = (value, count) => Math.min(count - 1, Math.max(0, value));
      const y = (clip(row + move[0], rows) + 0.5) / rows, x = (clip(column + move[1], columns) + 0.5) / columns;
      this.change({ cell: { x, y } });
    });
    this.parts(".strip").addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) this.goTo(Number(button.dataset.frame));
    });
    this.parts(".strip").addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!move) return;
      event.preventDefault();
      this.goTo(Math.min(this.seen.frames.length - 1, Math.max(0, this.frame + move)));
      this.parts(".strip [aria-current]").focus();
    });
    this.parts(".bars").addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) this.change({ chosen: Number(button.dataset.label) });
    });
    this.parts(".neighbours").addEventListener("pointermove", (event) => {
      const box = event.target.closest(".window");
      if (!box) return;
      const { x, y } = cellOf(event, box);
      const [, , , , u, v] = this.seen.motion.similarities.shape;
      this.probe(Number(box.dataset.offset), Math.floor(y * u), Math.floor(x * v));
    });
    this.parts(".neighbours").addEventListener("pointerleave", () => this.probe());
    this.parts(".neighbours").addEventListener("keydown", (event) => {
      const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      const box = event.target.querySelector(".window");
      if (!move || !box) return;
      event.preventDefault();
      const [, , , , u, v] = this.seen.motion.similarities.shape;
      const at = this.probed?.offset === Number(box.dataset.offset) ? this.probed : { i: (u - 1) / 2, j: (v - 1) / 2 };
      const clip = (value, count) => Math.min(count - 1, Math.max(0, value));
      this.probe(Number(box.dataset.offset), clip(at.i + move[0], u), clip(at.j + move[1], v));
    });
  }

  /** Go to one of this network's frames. */
  goTo(frame) {
    this.change({ time: Math.ceil((frame * this.state.frames) / this.seen.frames.length) });
  }

  /** Draw what depends on the changed parts of the state; without arguments, everything. */
  update(changed = ["time", "cell", "chosen"]) {
    if (changed.includes("chosen")) {
      this.drawStrip();
      this.parts(".of-activation .chosen").textContent = this.common.labels[this.chosen];
      this.parts(".of-activation .high").textContent = this.seen.peakOf(this.chosen).value.toPrecision(3);
    }
    if (changed.includes("time") || changed.includes("chosen")) {
      const picture = this.seen.picture(this.frame, this.chosen, this.common.table);
      picture.append(element("svg", { class: "layer cursor", "aria-hidden": "true" }));
      this.stage.replaceChildren(picture);
      this.parts(".strip").querySelectorAll("button").forEach((button, frame) => {
        button.toggleAttribute("aria-current", frame === this.frame);
        if (frame === this.frame) button.setAttribute("aria-current", "true");
        button.tabIndex = frame === this.frame ? 0 : -1;
      });
      this.drawBars();
      this.drawChart();
    }
    this.drawCursor();
    this.drawNeighbours();
    this.tell(this.state.cell);
  }

  drawStrip() {
    this.parts(".strip").replaceChildren(...this.seen.frames.map((_, frame) => element(
      "button", { type: "button", "data-frame": frame, "aria-label": `Frame ${frame + 1}` },
      this.seen.picture(frame, this.chosen, this.common.table, { arrows: false }), element("span", {}, `${frame + 1}`))));
  }

  drawBars() {
    const { labels } = this.common;
    const shown = this.classes.includes(this.chosen) ? this.classes : [...this.classes, this.chosen];
    const { shape: [maps, count], data } = this.seen.frameProbabilities;
    const map = this.seen.mapOf(this.frame, maps);
    const focused = this.parts(".bars button:focus")?.dataset.label;
    this.parts(".bars").replaceChildren(...shown.map((label) => {
      const kind = this.kindOf(label);
      const word = { right: "✓ right", wrong: "✗ wrong" }[kind] || "";
      const ofClip = this.seen.probabilities[label], ofFrame = data[map * count + label];
      const swatch = element("svg", { class: "swatch", viewBox: "0 0 22 8", width: 22, height: 8, "aria-hidden": "true" },
        element("path", { class: "line", d: "M2 4h18" }));
      return element("li", { class: this.toneOf(label) }, element(
        "button", {
          type: "button", "data-label": label, "aria-pressed": String(label === this.chosen),
          title: `Show the activation of ${labels[label]}`,
        },
        element("span", { class: "name" }, swatch, labels[label], word && element("span", { class: "word" }, word)),
        element("span", { class: "bar of-clip-bar" }, element("i", { style: `width:${100 * ofClip}%` })),
        element("span", { class: "value" }, percent(ofClip)),
        element("span", { class: "bar of-frame-bar" }, element("i", { style: `width:${100 * ofFrame}%` })),
        element("span", { class: "value" }, percent(ofFrame))));
    }));
    if (focused) this.parts(`.bars [data-label="${focused}"]`)?.focus();
  }

  drawChart() {
    const { shape: [maps, count], data } = this.seen.frameProbabilities;
    const left = 36, width = 276, top = 8, height = 96;
    const x = (map) => left + (maps > 1 ? (map / (maps - 1)) * width : width / 2), y = (p) => top + (1 - p) * height;
    const children = [0, 0.5, 1].flatMap((p) => [
      element("line", { class: "grid", x1: left, x2: left + width, y1: y(p), y2: y(p) }),
      element("text", { x: left - 5, y: y(p) + 4, "text-anchor": "end" }, `${100 * p}%`),
    ]);
    for (let map = 0; map < maps; map++) {
      children.push(element("text", { x: x(map), y: 122, "text-anchor": "middle" }, `${this.seen.frameOf(map, maps) + 1}`));
    }
    const now = x(this.seen.mapOf(this.frame, maps));
    children.push(element("line", { class: "now", x1: now, x2: now, y1: top, y2: top + height }));
    this.classes.slice().reverse().forEach((label) => {
      const points = Array.from({ length: maps }, (_, map) => `${x(map)} ${y(data[map * count + label])}`);
      const path = points.length > 1 ? `M${points.join("L")}` : `M${points[0]}h.01`;
      children.push(element("path", { class: `line ${this.toneOf(label)}`, d: path },
        element("title", {}, this.common.labels[label])));
    });
    this.parts(".chart").replaceChildren(...children);
  }

  drawCursor() {
    const [rows, columns] = this.seen.grid;
    const [row, column] = Seen.position(this.state.cell, rows, columns);
    const svg = this.stage.querySelector(".cursor");
    svg.setAttribute("viewBox", `0 0 ${columns} ${rows}`);
    svg.replaceChildren(...cellMark(column, row));
  }

  /** Draw the similarities of the cell over its neighbouring frames, each at its place. */
  drawNeighbours() {
    const { seen } = this;
    if (!seen.motion) return;
    const [maps, rows, columns, , u, v] = seen.motion.similarities.shape;
    const map = seen.mapOf(this.frame, maps);
    const [row, column] = Seen.position(this.state.cell, rows, columns);
    const compared = seen.similaritiesAt(map, row, column);
    const [low, high] = range(compared.flatMap(({ values }) => values || []));
    this.compared = { map, row, column, all: compared };
    const scales = this.parts(".compared .scales");
    scales.querySelector(".low").textContent = Number.isFinite(low) ? low.toFixed(2) : "–";
    scales.querySelector(".high").textContent = Number.isFinite(high) ? high.toFixed(2) : "–";
    const { step } = seen.motion;
    const width = (100 * v * step) / columns, height = (100 * u * step) / rows;
    const left = (100 * (column + 0.5)) / columns - width / 2, top = (100 * (row + 0.5)) / rows - height / 2;
    const figures = compared.map(({ offset, map: other, values }, l) => {
      const title = nameOf(offset);
      const stack = element("div", { class: "stack", style: `aspect-ratio:${seen.width}/${seen.height}` });
      const figure = element("figure", { class: "neighbour", "data-offset": offset }, stack);
      if (other === null) {
        stack.append(element("span", { class: "missing" }, "no frame"));
        figure.append(element("figcaption", {}, title));
        return figure;
      }
      figure.tabIndex = 0;
      figure.setAttribute("role", "application");
      figure.setAttribute("aria-label", `Similarities with ${title}; the arrow keys read them`);
      const canvas = element("canvas", {
        class: "window", "data-offset": l, style: `left:${left}%;top:${top}%;width:${width}%;height:${height}%`,
      });
      paint(canvas, v, u, values, low, high, this.common.table);
      const [dx, dy] = seen.displacementAt(map, row, column, l);
      const marks = element("svg", { class: "layer marks", viewBox: `0 0 ${columns} ${rows}`, "aria-hidden": "true" });
      const at = { cx: column + 0.5 + (dx * columns) / seen.width, cy: row + 0.5 + (dy * rows) / seen.height };
      const radius = Math.max(rows, columns) / 40;
      marks.append(...cellMark(column, row), element("circle", { class: "edge", ...at, r: radius }),
        element("circle", { class: "expected", ...at, r: radius }));
      const image = element("img", {
        src: seen.frames[seen.frameOf(other, maps)], alt: `Frame ${seen.frameOf(other, maps) + 1}`, draggable: "false",
      });
      stack.append(image, canvas, marks);
      const best = range(values)[1];
      figure.append(element("figcaption", {}, element("b", {}, title), ` best ${best.toFixed(3)}`, element("br"),
        `expected (${signed(dx, 1)}, ${signed(dy, 1)}) px`));
      return figure;
    });
    if (!seen.motion.offsets.includes(0)) figures.splice(this.placeOfSource(), 0, this.source(map, maps, row, column));
    const focused = this.parts(".neighbours :focus")?.dataset.offset;
    this.parts(".neighbours").replaceChildren(...figures);
    this.parts(".neighbours").style.setProperty("--many", Math.min(figures.length, 5));
    this.parts(".neighbours").style.setProperty("--few", Math.min(figures.length, 3));
    if (focused !== undefined) this.parts(`.neighbours [data-offset="${focused}"]`)?.focus();
    this.probe();
  }

  /** Position of the cell's own frame among its neighbours. */
  placeOfSource() {
    return this.seen.motion.offsets.filter((offset) => offset < 0).length;
  }

  /** Draw the cell in its own frame, for windows that leave this frame out. */
  source(map, maps, row, column) {
    const { seen } = this, [rows, columns] = seen.grid, frame = seen.frameOf(map, maps);
    const marks = element("svg", { class: "layer marks", viewBox: `0 0 ${columns} ${rows}`, "aria-hidden": "true" });
    marks.append(...cellMark(column, row));
    const image = element("img", { src: seen.frames[frame], alt: `Frame ${frame + 1}`, draggable: "false" });
    const stack = element("div", { class: "stack", style: `aspect-ratio:${seen.width}/${seen.height}` }, image, marks);
    return element("figure", { class: "neighbour" }, stack, element("figcaption", {}, element("b", {}, "this frame")));
  }

  /** Tell the numbers of a cell. */
  tell(cell) {
    const { seen } = this, [rows, columns] = seen.grid;
    const [row, column] = Seen.position(cell, rows, columns);
    const words = [`row ${row + 1}, column ${column + 1}`];
    const map = seen.pairOf(this.frame);
    if (map !== null) {
      const [dx, dy] = seen.displacementAt(map, row, column);
      words.push(`displacement (${signed(dx, 2)}, ${signed(dy, 2)}) px`,
        `confidence ${seen.confidenceOf(map)[row * columns + column].toFixed(4)}`);
    } else if (seen.motion) {
      words.push("no frame to compare with");
    }
    const [, , high, wide] = seen.activation.shape;
    const [y, x] = Seen.position(cell, high, wide);
    const value = seen.activationOf(this.chosen, this.frame)[y * wide + x], peak = seen.peakOf(this.chosen).value;
    words.push(`activation ${value.toPrecision(4)} (${peak > 0 ? Math.round((100 * value) / peak) : 0} % of the peak)`);
    this.parts(".seen .readout").textContent = words.join(" · ");
  }

  /** Tell the similarity at position (i, j) of the window at one offset; without arguments, that one can point at it. */
  probe(offset, i, j) {
    const readout = this.parts(".probe");
    const values = offset === undefined ? null : this.compared.all[offset].values;
    const [, , , , u, v] = this.seen.motion.similarities.shape;
    const value = values?.[i * v + j];
    this.probed = values ? { offset, i, j } : null;
    const marks = this.article.querySelectorAll(".marks .probed");
    marks.forEach((mark) => mark.remove());
    if (value === undefined || i < 0 || j < 0 || i >= u || j >= v) {
      readout.textContent = "Point at a window, or focus it and use the arrow keys, to read similarities.";
      return;
    }
    const { step } = this.seen.motion;
    const [di, dj] = [i - (u - 1) / 2, j - (v - 1) / 2];
    const words = Number.isNaN(value) ? "outside of the frame" : `similarity ${value.toFixed(4)}`;
    readout.textContent = `${words} at ${signed(dj * step, 0)} right, ${signed(di * step, 0)} down`
      + ` (cells), ${signed(this.compared.all[offset].offset, 0)} in time`;
    const [row, column] = this.seen.windowCell(this.compared.row, this.compared.column, i, j);
    const figures = this.article.querySelectorAll(".neighbour .window");
    const box = [...figures].find((each) => Number(each.dataset.offset) === offset);
    box.parentElement.querySelector(".marks").append(
      element("rect", { class: "probed", x: column, y: row, width: 1, height: 1 }));
  }
}

/** Name a temporal offset. */
function nameOf(offset) {
  const near = { "-1": "the frame before", 0: "this frame", 1: "the next frame" };
  return near[offset] || `${Math.abs(offset)} frames ${offset < 0 ? "before" : "later"}`;
}

/** Make the mark of a cell: a light square with a dark edge. */
function cellMark(column, row) {
  const box = { x: column, y: row, width: 1, height: 1 };
  return [element("rect", { class: "edge", ...box }), element("rect", box)];
}
