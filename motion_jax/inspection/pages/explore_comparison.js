// The similarities of a cell, drawn over the frames that a motion block compares it with.

class Comparison {
  constructor(article, seen, table) {
    Object.assign(this, { seen, table });
    this.parts = (selector) => article.querySelector(`.compared ${selector}`);
    this.box = this.parts(".neighbours");
    this.box.addEventListener("pointermove", (event) => {
      const box = event.target.closest(".window");
      if (!box) return;
      const { x, y } = placeIn(box, event);
      const [, , , , u, v] = this.seen.motion.similarities.shape;
      this.probe(Number(box.dataset.offset), Math.floor(y * u), Math.floor(x * v));
    });
    this.box.addEventListener("pointerleave", () => this.probe());
    this.box.addEventListener("keydown", (event) => {
      const move = movement(event);
      const box = event.target.querySelector(".window");
      if (!move || !box) return;
      event.preventDefault();
      const [, , , , u, v] = this.seen.motion.similarities.shape;
      const at = this.probed?.offset === Number(box.dataset.offset) ? this.probed : { i: (u - 1) / 2, j: (v - 1) / 2 };
      this.probe(Number(box.dataset.offset), bounded(at.i + move[0], u), bounded(at.j + move[1], v));
    });
  }

  /** Draw the similarities of the cell over its neighbouring frames, each at its place. */
  draw(frame, cell) {
    const { seen } = this;
    const [maps, rows, columns, , u, v] = seen.motion.similarities.shape;
    const map = seen.mapOf(frame, maps);
    const [row, column] = Seen.position(cell, rows, columns);
    const compared = seen.similaritiesAt(map, row, column);
    const [low, high] = range(compared.flatMap(({ values }) => values || []));
    this.compared = { map, row, column, all: compared };
    const scales = this.parts(".scales");
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
      paint(canvas, v, u, values, low, high, this.table);
      const [dx, dy] = seen.displacementAt(map, row, column, l);
      const marks = element("svg", { class: "layer marks", viewBox: `0 0 ${columns} ${rows}`, "aria-hidden": "true" });
      const at = { cx: column + 0.5 + (dx * columns) / seen.width, cy: row + 0.5 + (dy * rows) / seen.height };
      const radius = Math.max(rows, columns) / 40;
      marks.append(...cellMark(column, row), element("circle", { class: "edge", ...at, r: radius }),
        element("circle", { class: "expected", ...at, r: radius }));
      stack.append(this.image(seen.frameOf(other, maps)), canvas, marks);
      const best = range(values)[1];
      figure.append(element("figcaption", {}, element("b", {}, title), ` best ${best.toFixed(3)}`, element("br"),
        `expected (${signed(dx, 1)}, ${signed(dy, 1)}) px`));
      return figure;
    });
    if (!seen.motion.offsets.includes(0)) figures.splice(this.placeOfSource(), 0, this.source(map, maps, row, column));
    const focused = this.parts(".neighbours :focus")?.dataset.offset;
    this.box.replaceChildren(...figures);
    this.box.style.setProperty("--many", Math.min(figures.length, 5));
    this.box.style.setProperty("--few", Math.min(figures.length, 3));
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
    const image = this.image(frame);
    const stack = element("div", { class: "stack", style: `aspect-ratio:${seen.width}/${seen.height}` }, image, marks);
    return element("figure", { class: "neighbour" }, stack, element("figcaption", {}, element("b", {}, "this frame")));
  }

  image(frame) {
    return element("img", { src: this.seen.frames[frame], alt: `Frame ${frame + 1}`, draggable: "false" });
  }

  /** Tell the similarity at position (i, j) of the window at one offset; without arguments, how to read one. */
  probe(offset, i, j) {
    const readout = this.parts(".probe");
    const values = offset === undefined ? null : this.compared.all[offset].values;
    const [, , , , u, v] = this.seen.motion.similarities.shape;
    const value = values?.[i * v + j];
    this.probed = values ? { offset, i, j } : null;
    this.parts(".probed")?.remove();
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
    this.parts(`.window[data-offset="${offset}"]`).parentElement.querySelector(".marks").append(
      element("rect", { class: "probed", x: column, y: row, width: 1, height: 1 }));
  }
}

/** Name a temporal offset. */
function nameOf(offset) {
  const near = { "-1": "the frame before", 0: "this frame", 1: "the next frame" };
  return near[offset] || `${Math.abs(offset)} frames ${offset < 0 ? "before" : "later"}`;
}
