// The best classes of one network, as bars and as lines over the frames.

const BEST = 5;
const percent = (number) => `${(100 * number).toFixed(1)} %`;

class Classes {
  /** choose(label) is called for a click on a class. */
  constructor(article, seen, labels, truth, choose) {
    Object.assign(this, { seen, labels, truth });
    this.bars = article.querySelector(".bars");
    this.chart = article.querySelector(".chart");
    this.best = this.bestClasses();
    this.bars.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) choose(Number(button.dataset.label));
    });
  }

  /** The best classes of the clip, and the right one. */
  bestClasses() {
    const order = [...this.seen.probabilities.keys()].sort(
      (a, b) => this.seen.probabilities[b] - this.seen.probabilities[a] || a - b);
    const best = order.slice(0, BEST);
    if (this.truth !== null && !best.includes(this.truth)) best.push(this.truth);
    return best;
  }

  /** "right" or "wrong", "best" where the right class is unknown, and "" for other classes. */
  kindOf(label) {
    if (this.truth === null) return label === this.seen.best ? "best" : "";
    return label === this.truth ? "right" : label === this.seen.best ? "wrong" : "";
  }

  /** Style of a class in bars and lines: its kind, or a colour of its own. */
  toneOf(label) {
    return this.kindOf(label) || `s${1 + this.best.indexOf(label)}`;
  }

  /** Draw the probabilities in the clip and in a frame; `chosen` is the class whose activation is shown. */
  drawBars(frame, chosen) {
    const { labels } = this;
    const shown = this.best.includes(chosen) ? this.best : [...this.best, chosen];
    const { shape: [maps, count], data } = this.seen.frameProbabilities;
    const map = this.seen.mapOf(frame, maps);
    const focused = this.bars.querySelector("button:focus")?.dataset.label;
    this.bars.replaceChildren(...shown.map((label) => {
      const kind = this.kindOf(label);
      const word = { right: "✓ right", wrong: "✗ wrong" }[kind] || "";
      const ofClip = this.seen.probabilities[label], ofFrame = data[map * count + label];
      const swatch = element("svg", { class: "swatch", viewBox: "0 0 22 8", width: 22, height: 8, "aria-hidden": "true" },
        element("path", { class: "line", d: "M2 4h18" }));
      return element("li", { class: this.toneOf(label) }, element(
        "button", {
          type: "button", "data-label": label, "aria-pressed": String(label === chosen),
          title: `Show the activation of ${labels[label]}`,
        },
        element("span", { class: "name" }, swatch, labels[label], word && element("span", { class: "word" }, word)),
        element("span", { class: "bar of-clip-bar" }, element("i", { style: `width:${100 * ofClip}%` })),
        element("span", { class: "value" }, percent(ofClip)),
        element("span", { class: "bar of-frame-bar" }, element("i", { style: `width:${100 * ofFrame}%` })),
        element("span", { class: "value" }, percent(ofFrame))));
    }));
    if (focused) this.bars.querySelector(`[data-label="${focused}"]`)?.focus();
  }

  /** Draw the probabilities over the frames, with a line at one. */
  drawChart(frame) {
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
    const now = x(this.seen.mapOf(frame, maps));
    children.push(element("line", { class: "now", x1: now, x2: now, y1: top, y2: top + height }));
    this.best.slice().reverse().forEach((label) => {
      const points = Array.from({ length: maps }, (_, map) => `${x(map)} ${y(data[map * count + label])}`);
      const path = points.length > 1 ? `M${points.join("L")}` : `M${points[0]}h.01`;
      children.push(element("path", { class: `line ${this.toneOf(label)}`, d: path },
        element("title", {}, this.labels[label])));
    });
    this.chart.replaceChildren(...children);
  }
}
