// The state of the page, and the controls that change it.

{
  const byId = (id) => document.getElementById(id);
  const common = JSON.parse(byId("common").textContent);
  const state = { time: 0, frames: 1, cell: { x: 0.5, y: 0.5 }, chosen: null };
  const opened = new Map(); // clip -> its panels and the time and cell to start with
  let panels = [], timer = null;

  function change(values) {
    Object.assign(state, values);
    panels.forEach((panel) => panel.update(Object.keys(values)));
    if ("time" in values) showTime();
    if (values.chosen != null) byId("search").value = common.labels[values.chosen];
  }

  function showTime() {
    byId("time").max = state.frames - 1;
    byId("time").value = state.time;
    byId("time").setAttribute("aria-valuetext", `frame ${state.time + 1} of ${state.frames}`);
    byId("frame").textContent = `${state.time + 1} / ${state.frames}`;
  }

  /** Show a clip. Its numbers are read when it is shown for the first time. */
  async function open(number) {
    play(false);
    const sections = [...document.querySelectorAll(`[data-clip="${number}"]`)];
    const section = sections.find((each) => each.classList.contains("networks"));
    if (!opened.has(number)) {
      const data = JSON.parse(section.querySelector(".data").textContent);
      opened.set(number, { data, seen: await Promise.all(data.seen.map(Seen.read)) });
    }
    const { data, seen } = opened.get(number);
    const frames = Math.max(...seen.map((each) => each.frames.length));
    const evidence = Array.from({ length: frames }, (_, time) =>
      seen.reduce((sum, each) => sum + each.evidenceIn(each.frameAt(time, frames)), 0));
    const time = evidence.indexOf(Math.max(...evidence));
    Object.assign(state, { frames, time, cell: seen[0].startIn(seen[0].frameAt(time, frames)), chosen: null });
    byId("search").value = "";
    document.querySelectorAll("[data-clip]").forEach((each) => { each.hidden = each.dataset.clip !== String(number); });
    document.querySelectorAll(".of-motion").forEach((each) => { each.hidden = !seen.some((one) => one.motion); });
    const articles = [...section.querySelectorAll("article")];
    const known = opened.get(number).panels;
    panels = known || articles.map((article, i) =>
      new Panel(article, seen[i], common, data.label, data.longest, state, change));
    opened.get(number).panels = panels;
    if (known) panels.forEach((panel) => panel.update());
    showTime();
    document.body.dataset.ready = "true";
  }

  function play(on) {
    clearInterval(timer);
    timer = on ? setInterval(() => step(1), 1000 / Number(byId("speed").value)) : null;
    byId("play").classList.toggle("playing", on);
    byId("play").setAttribute("aria-label", on ? "Pause" : "Play");
  }

  function step(by) {
    change({ time: (state.time + by + state.frames) % state.frames });
  }

  byId("play").addEventListener("click", () => play(timer === null));
  byId("speed").addEventListener("change", () => { if (timer !== null) play(true); });
  byId("time").addEventListener("input", (event) => change({ time: Number(event.target.value) }));
  byId("pick")?.addEventListener("change", (event) => open(Number(event.target.value)));
  byId("search").addEventListener("input", ({ target }) => {
    const label = common.labels.indexOf(target.value.trim());
    if (label >= 0 || target.value === "") change({ chosen: label < 0 ? null : label });
  });
  byId("search").addEventListener("change", ({ target }) => {
    target.setAttribute("aria-invalid", String(target.value !== "" && !common.labels.includes(target.value.trim())));
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input[type=search], select")) return;
    if (event.key === "," || event.key === ".") step(event.key === "," ? -1 : 1);
    if (event.key === " " && !event.target.closest("button, input, summary, a")) {
      event.preventDefault();
      play(timer === null);
    }
  });

  for (const overlay of document.querySelectorAll("[data-overlay]")) {
    const [box, slider] = overlay.querySelectorAll("input");
    const apply = () => {
      document.body.classList.toggle(`show-${overlay.dataset.overlay}`, box.checked);
      document.body.style.setProperty(`--${overlay.dataset.overlay}`, slider.value / 100);
      slider.disabled = !box.checked;
    };
    box.addEventListener("change", apply);
    slider.addEventListener("input", apply);
    apply();
  }

  unpack(common.table).then(({ data }) => {
    common.table = data;
    return open(0);
  });
}
