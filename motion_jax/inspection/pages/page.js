"use strict";
// Shared by every page: packed arrays, colours of the theme, and the button that switches it.

/** Read an array of Python's `packed`: a promise of {dtype, shape, data} with a typed array. */
async function unpack(text) {
  const [dtype, shape, content] = text.split(":");
  const kinds = {
    uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array, int16: Int16Array,
    uint32: Uint32Array, int32: Int32Array, float32: Float32Array, float64: Float64Array,
  };
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  return { dtype, shape: shape ? shape.split(",").map(Number) : [], data: new kinds[dtype](buffer) };
}

/** Return a CSS variable such as "--ink" as [red, green, blue] of the current theme, for a canvas. */
function rgb(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const numbers = getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
  probe.remove();
  return numbers;
}

/** Call a function whenever the theme changes. */
function onTheme(callback) {
  document.addEventListener("theme", callback);
}

{
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const changed = () => document.dispatchEvent(new Event("theme"));
  document.getElementById("theme").addEventListener("click", () => {
    const now = root.dataset.theme || (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    changed();
  });
  dark.addEventListener("change", changed);

  // Mark the section in view in the list of contents.
  const links = new Map([...document.querySelectorAll(".contents a")].map((link) => [link.hash.slice(1), link]));
  if (links.size) {
    const mark = () => {
      const sections = [...links.keys()].map((id) => document.getElementById(id)).filter(Boolean);
      const above = sections.filter((section) => section.getBoundingClientRect().top < innerHeight / 3);
      const current = above.at(-1) || sections[0];
      links.forEach((link, id) => link.toggleAttribute("aria-current", id === current?.id));
    };
    addEventListener("scroll", mark, { passive: true });
    mark();
  }
}
