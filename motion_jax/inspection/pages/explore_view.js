// What one network sees in one clip: its numbers, and the pictures painted from them.

const SVG = "http://www.w3.org/2000/svg";
const ARROWS = 8; // at most, on a side of a frame

/** Make an element with attributes and children. */
function element(name, attributes = {}, ...children) {
  const made = ["svg", "path", "rect", "circle", "line", "text", "title", "g"].includes(name)
    ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Write a number with its sign. */
function signed(number, digits) {
  const rounded = Math.abs(number).toFixed(digits);
  return `${number < 0 && Number(rounded) > 0 ? "−" : "+"}${rounded}`;
}

/** Rows and columns that an arrow key moves, or undefined for other keys. */
function movement(event) {
  return { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
}

/** Bound a position to 0 .. count - 1. */
function bounded(value, count) {
  return Math.min(count - 1, Math.max(0, value));
}

/** Place of a pointer in an element, {x, y} from 0 to 1 inside of it. */
function placeIn(box, event) {
  const { left, top, width, height } = box.getBoundingClientRect();
  return { x: (event.clientX - left) / width, y: (event.clientY - top) / height };
}

/** Make the mark of a cell: a light square with a dark edge. */
function cellMark(column, row) {
  const box = { x: column, y: row, width: 1, height: 1 };
  return [element("rect", { class: "edge", ...box }), element("rect", box)];
}

/** Paint values as colours of the table, one pixel each; NaN is transparent. */
function paint(canvas, width, height, values, low, high, table) {
  const picture = new ImageData(width, height);
  const scale = high > low ? 255 / (high - low) : 0;
  values.forEach((value, i) => {
    if (Number.isNaN(value)) return;
    const entry = 3 * Math.round(Math.min(255, Math.max(0, (value - low) * scale)));
    picture.data.set([table[entry], table[entry + 1], table[entry + 2], 255], 4 * i);
  });
  show(canvas, picture);
}

/** Paint RGB bytes, one pixel for each three. */
function paintColours(canvas, width, height, colours) {
  const picture = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) picture.data.set([...colours.subarray(3 * i, 3 * i + 3), 255], 4 * i);
  show(canvas, picture);
}

function show(canvas, picture) {
  canvas.width = picture.width;
  canvas.height = picture.height;
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

/** Return the lowest and the highest number. */
function range(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

/** Read an array of Python's `compact` as {shape, at}, where at(i) is the number at flat position i. */
async function readCompact({ low, step, values }) {
  const { shape, data } = await unpack(values);
  return { shape, at: (i) => low + step * data[i] };
}

/** Numbers of one network for one clip. Time is the position of a frame, a cell is {x, y} from 0 to 1. */
class Seen {
  static async read(packed) {
    const seen = new Seen();
    Object.assign(seen, { height: packed.height, width: packed.width, frames: packed.frames });
    seen.probabilities = (await unpack(packed.probabilities)).data;
    seen.frameProbabilities = await unpack(packed.frame_probabilities);
    seen.activation = await readCompact(packed.activation);
    seen.best = seen.probabilities.indexOf(range(seen.probabilities)[1]);
    if (packed.motion) {
      const [expected, confidence, colours] = await Promise.all(
        [packed.motion.expected, packed.motion.confidence, packed.motion.colours].map(unpack));
      const similarities = await readCompact(packed.motion.similarities);
      seen.motion = { ...packed.motion, expected, confidence, colours, similarities };
      seen.motion.confidences = range(seen.motion.pairs.flatMap((map) => [...seen.confidenceOf(map)]));
    }
    return seen;
  }

  /** Frame at a time of a player with `frames` frames. */
  frameAt(time, frames) {
    return Math.floor(((time + 0.5) * this.frames.length) / frames);
  }

  /** Position of a frame in an array of `count` maps of the clip. */
  mapOf(frame, count) {
    return Math.floor((frame * count) / this.frames.length);
  }

  /** First frame of a map. */
  frameOf(map, count) {
    return map * Math.floor(this.frames.length / count);
  }

  /** Cells of the finest map: [rows, columns]. */
  get grid() {
    return (this.motion ? this.motion.expected.shape : this.activation.shape.slice(1)).slice(1, 3);
  }

  /** Row and column of a cell in a map. */
  static position({ x, y }, rows, columns) {
    return [Math.min(rows - 1, Math.floor(y * rows)), Math.min(columns - 1, Math.floor(x * columns))];
  }

  activationOf(label, frame) {
    const [, maps, rows, columns] = this.activation.shape;
    const first = (label * maps + this.mapOf(frame, maps)) * rows * columns;
    return Array.from({ length: rows * columns }, (_, i) => this.activation.at(first + i));
  }

  /** Largest activation of a class in the clip, with its frame and cell. */
  peakOf(label) {
    const [, maps, rows, columns] = this.activation.shape;
    let best = { value: 0, frame: 0, cell: { x: 0.5, y: 0.5 } };
    for (let i = 0; i < maps * rows * columns; i++) {
      const value = this.activation.at(label * maps * rows * columns + i);
      if (value <= best.value) continue;
      const map = Math.floor(i / (rows * columns)), row = Math.floor(i / columns) % rows, column = i % columns;
      best = { value, frame: this.frameOf(map, maps), cell: { x: (column + 0.5) / columns, y: (row + 0.5) / rows } };
    }
    return best;
  }

  /** Largest activation of the best class in a frame, as a part of its peak; 0 for a frame without a partner. */
  evidenceIn(frame) {
    if (this.motion && this.pairOf(frame) === null) return 0;
    return range(this.activationOf(this.best, frame))[1] / (this.peakOf(this.best).value || 1);
  }

  /** Cell of a frame to start with: of those with nearly the strongest evidence, the one that moves most surely. */
  startIn(frame) {
    const [rows, columns] = this.grid, [, , high, wide] = this.activation.shape, map = this.pairOf(frame);
    const activation = this.activationOf(this.best, frame), [, strongest] = range(activation);
    const confidence = map === null ? [] : this.confidenceOf(map);
    let most = -1, cell = { x: 0.5, y: 0.5 };
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const centre = { x: (column + 0.5) / columns, y: (row + 0.5) / rows };
        const [y, x] = Seen.position(centre, high, wide);
        const evidence = activation[y * wide + x] / (strongest || 1);
        if (evidence < 0.8) continue;
        const [dx, dy] = map === null ? [0, 0] : this.displacementAt(map, row, column);
        const moves = Math.hypot((dx * columns) / this.width, (dy * rows) / this.height) > 0.5;
        const value = moves ? 1 + confidence[row * columns + column] : evidence;
        if (value > most) [most, cell] = [value, centre];
      }
    }
    return cell;
  }

  /** Map of the motion block at a frame, or null where the main offset has no partner. */
  pairOf(frame) {
    const map = this.motion ? this.mapOf(frame, this.motion.expected.shape[0]) : -1;
    return this.motion?.pairs.includes(map) ? map : null;
  }

  confidenceOf(map) {
    const [, rows, columns, offsets] = this.motion.confidence.shape;
    const first = map * rows * columns;
    return Array.from({ length: rows * columns },
      (_, i) => this.motion.confidence.data[(first + i) * offsets + this.motion.main]);
  }

  /** Displacement in pixels [dx, dy]. */
  displacementAt(map, row, column, offset = this.motion.main) {
    const [, rows, columns, offsets] = this.motion.expected.shape;
    const first = (((map * rows + row) * columns + column) * offsets + offset) * 2;
    return [this.motion.expected.data[first], this.motion.expected.data[first + 1]];
  }

  /** Similarities of a cell for every offset: {map, values (u, v)}; NaN outside of the map, map null for no frame. */
  similaritiesAt(map, row, column) {
    const [maps, rows, columns, offsets, u, v] = this.motion.similarities.shape;
    return this.motion.offsets.map((offset, l) => {
      const other = map + offset;
      if (other < 0 || other >= maps) return { offset, map: null };
      const first = (((map * rows + row) * columns + column) * offsets + l) * u * v;
      const values = Array.from({ length: u * v }, (_, i) => {
        const [y, x] = this.windowCell(row, column, Math.floor(i / v), i % v);
        return y < 0 || y >= rows || x < 0 || x >= columns ? NaN : this.motion.similarities.at(first + i);
      });
      return { offset, map: other, values };
    });
  }

  /** Row and column that position (i, j) of a cell's window stands for; they may lie outside of the map. */
  windowCell(row, column, i, j) {
    const [, , , , u, v] = this.motion.similarities.shape;
    const { step } = this.motion;
    return [row + (i - (u - 1) / 2) * step, column + (j - (v - 1) / 2) * step];
  }

  /** Make a frame with its overlays as layers, one above the other. */
  picture(frame, label, table, { arrows = true } = {}) {
    const image = element("img", { src: this.frames[frame], alt: `Frame ${frame + 1}`, draggable: "false" });
    const stack = element("div", { class: "stack", style: `aspect-ratio:${this.width}/${this.height}` }, image);
    const layer = (name) => stack.appendChild(element("canvas", { class: `layer ${name}`, "aria-hidden": "true" }));
    const [, , rows, columns] = this.activation.shape;
    paint(layer("activation"), columns, rows, this.activationOf(label, frame), 0, this.peakOf(label).value, table);
    const map = this.pairOf(frame);
    if (map === null) return stack;
    const [, height, width] = this.motion.expected.shape;
    paint(layer("confidence"), width, height, this.confidenceOf(map), ...this.motion.confidences, table);
    const colours = this.motion.colours.data.subarray(3 * map * height * width, 3 * (map + 1) * height * width);
    paintColours(layer("displacement"), width, height, colours);
    if (arrows) stack.append(this.arrows(map));
    return stack;
  }

  /** Draw the displacement of the most confident cell of each block as an arrow, fainter where it is less confident. */
  arrows(map) {
    const [, rows, columns] = this.motion.expected.shape;
    const confidence = this.confidenceOf(map);
    const block = Math.ceil(Math.max(rows, columns) / ARROWS);
    const cell = { x: this.width / columns, y: this.height / rows };
    const [low, high] = this.motion.confidences;
    const svg = element("svg", { class: "layer arrows", viewBox: `0 0 ${this.width} ${this.height}`, "aria-hidden": "true" });
    for (let top = 0; top < rows; top += block) {
      for (let left = 0; left < columns; left += block) {
        let best = null;
        for (let row = top; row < Math.min(rows, top + block); row++) {
          for (let column = left; column < Math.min(columns, left + block); column++) {
            const value = confidence[row * columns + column];
            if (!best || value > best.value) best = { value, row, column };
          }
        }
        const [dx, dy] = this.displacementAt(map, best.row, best.column);
        const path = arrow((best.column + 0.5) * cell.x, (best.row + 0.5) * cell.y, dx, dy, this.width / 45);
        const opacity = Math.max(0.15, (best.value - low) / (high - low || 1));
        svg.append(element("g", { opacity },
          element("path", { d: path, class: "edge" }), element("path", { d: path })));
      }
    }
    return svg;
  }
}

/** Return the path of an arrow from a point along (dx, dy); a motion shorter than a fifth of the head is a dot. */
function arrow(x, y, dx, dy, head) {
  const length = Math.hypot(dx, dy);
  if (length < head / 5) return `M${x} ${y}h.01`;
  const [endX, endY] = [x + dx, y + dy];
  const size = Math.min(head, length * 0.6), angle = Math.atan2(dy, dx);
  const side = (turn) => `${endX - size * Math.cos(angle + turn)} ${endY - size * Math.sin(angle + turn)}`;
  return `M${x} ${y}L${endX} ${endY}M${side(0.5)}L${endX} ${endY}L${side(-0.5)}`;
}
