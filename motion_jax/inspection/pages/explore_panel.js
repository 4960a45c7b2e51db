// The panel of one network: its frame and film strip, its classes and its comparison, which follow the state.

class Panel {
  /** state: {time, cell, chosen, frames}; change(values) updates it and every panel. */
  constructor(article, seen, common, truth, longest, state, change) {
    Object.assign(this, { seen, common, state, change });
    this.parts = (selector) => article.querySelector(selector);
    this.stage = this.parts(".stage");
    this.classes = new Classes(article, seen, common.labels, truth, (chosen) => change({ chosen }));
    this.comparison = seen.motion ? new Comparison(article, seen, common.table) : null;
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

  listen() {
    const inside = ({ x, y }) => x >= 0 && x < 1 && y >= 0 && y < 1;
    this.stage.addEventListener("pointerdown", (event) => {
      const cell = placeIn(this.stage, event);
      if (inside(cell)) this.change({ cell });
    });
    this.stage.addEventListener("pointermove", (event) => {
      const cell = placeIn(this.stage, event);
      if (inside(cell)) this.tell(cell);
    });
    this.stage.addEventListener("pointerleave", () => this.tell(this.state.cell));
    this.stage.addEventListener("keydown", (event) => {
      const move = movement(event);
      if (!move) return;
      event.preventDefault();
      const [rows, columns] = this.seen.grid;
      const [row, column] = Seen.position(this.state.cell, rows, columns);
      const y = (bounded(row + move[0], rows) + 0.5) / rows, x = (bounded(column + move[1], columns) + 0.5) / columns;
      this.change({ cell: { x, y } });
    });
    this.parts(".strip").addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) this.goTo(Number(button.dataset.frame));
    });
    this.parts(".strip").addEventListener("keydown", (event) => {
      const [, move] = movement(event) || [];
      if (!move) return;
      event.preventDefault();
      this.goTo(bounded(this.frame + move, this.seen.frames.length));
      this.parts(".strip [aria-current]").focus();
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
      this.classes.drawBars(this.frame, this.chosen);
      this.classes.drawChart(this.frame);
    }
    this.drawCursor();
    this.comparison?.draw(this.frame, this.state.cell);
    this.tell(this.state.cell);
  }

  drawStrip() {
    this.parts(".strip").replaceChildren(...this.seen.frames.map((_, frame) => element(
      "button", { type: "button", "data-frame": frame, "aria-label": `Frame ${frame + 1}` },
      this.seen.picture(frame, this.chosen, this.common.table, { arrows: false }), element("span", {}, `${frame + 1}`))));
  }

  drawCursor() {
    const [rows, columns] = this.seen.grid;
    const [row, column] = Seen.position(this.state.cell, rows, columns);
    const svg = this.stage.querySelector(".cursor");
    svg.setAttribute("viewBox", `0 0 ${columns} ${rows}`);
    svg.replaceChildren(...cellMark(column, row));
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
}
