// Glue between the data of the page, DataTables and Plotly. Every number comes from the data; nothing is computed here
// but which of them are shown, and by how much the lines of equal error move with C.

const byId = (id) => document.getElementById(id);

async function unpacked(id) {
  const bytes = Uint8Array.from(atob(byId(id).textContent), (letter) => letter.charCodeAt(0));
  return JSON.parse(await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text());
}

const bundle = URL.createObjectURL(new Blob([byId("tables").textContent], { type: "text/javascript" }));
let DATA, $;
try {
  [DATA, { jQuery: $ }] = await Promise.all([unpacked("data"), import(bundle)]);
} catch (error) {
  byId("failure").hidden = false;
  byId("failure").textContent = `This browser cannot read the page: ${error.message}`;
  throw error;
}

const GLYPHS = {
  circle: "●", square: "■", diamond: "◆", "triangle-up": "▲", "triangle-down": "▼", cross: "✚", x: "✖",
  pentagon: "⬟", "triangle-left": "◀", "triangle-right": "▶",
};
const MUTED = { light: "#b8bec8", dark: "#4d5663" };
const NEEDS = [...document.querySelectorAll("[name=has]")].map((box) => box.value);
const START = DATA.grid.indexOf(100);
const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "toImage"] };

// --- state: what is chosen, kept in the address ---------------------------------------------------------------------

const DEFAULTS = {
  task: DATA.tasks[0].name, place: "", group: "", x: "work", c: String(START), curve: "", measure: "variance × cost",
  profile: "variance × cost", has: NEEDS, unbiased: "", on: DATA.highlighted, q: "", order: "", theme: "",
};
let state;

function restore() {
  const given = new URLSearchParams(location.hash.slice(1));
  state = { ...DEFAULTS };
  for (const [name, value] of Object.entries(DEFAULTS)) {
    if (given.has(name)) state[name] = Array.isArray(value) ? given.getAll(name).filter(Boolean) : given.get(name);
  }
  if (!DATA.tasks.some((task) => task.name === state.task)) state.task = DEFAULTS.task;
  if (!(state.c in DATA.grid)) state.c = DEFAULTS.c;
  for (const name of ["x", "measure", "profile"]) {
    if (![...byId(name).options].some((option) => option.value === state[name])) state[name] = DEFAULTS[name];
  }
}

function keep() {
  const said = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    if (String(value) === String(DEFAULTS[name])) continue;
    for (const one of Array.isArray(value) ? (value.length ? value : [""]) : [value]) said.append(name, one);
  }
  history.replaceState(null, "", `#${said}`);
}

const theme = () => state.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
const task = () => DATA.tasks.find((one) => one.name === state.task);
const place = () => task().places.find((one) => one.label === state.place) ?? task().places[0];
const isOn = (label) => state.on.includes(label);

function fits(label) {
  const { needs, unbiased, reference } = DATA.estimators[label];
  if (reference) return true;
  return (needs ?? []).every((one) => state.has.includes(one)) && !(state.unbiased && unbiased === false);
}

function toggle(label) {
  const fromChip = document.activeElement?.closest(".chips");
  state.on = isOn(label) ? state.on.filter((one) => one !== label) : [...state.on, label];
  highlight();
  if (fromChip) document.querySelector(`.chips [data-label="${CSS.escape(label)}"]`)?.focus();
}

// --- small parts ----------------------------------------------------------------------------------------------------

function element(tag, text = "", attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function mark(label) {
  const { symbol, ...colours } = DATA.estimators[label];
  const made = element("span", GLYPHS[symbol] ?? "●", { class: "mark", "aria-hidden": "true" });
  made.style.color = isOn(label) ? colours[theme()] : MUTED[theme()];
  return made;
}

function choices(id, pairs, chosen) {
  const options = pairs.map(([value, text]) => Object.assign(element("option", text), { value }));
  byId(id).replaceChildren(...options);
  byId(id).disabled = pairs.length < 2;
  if (pairs.length) byId(id).value = pairs.some(([value]) => value === chosen) ? chosen : pairs[0][0];
  return byId(id).value;
}

function download(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  element("a", "", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

// --- figures --------------------------------------------------------------------------------------------------------

const shown = {}; // the figure that each place on the page has

function styled(trace) {
  if (trace.meta.role === "contour") return { ...trace, x: trace.x.map((x) => x * DATA.grid[state.c]) };
  const { estimator, role } = trace.meta;
  const on = isOn(estimator);
  const color = on ? DATA.estimators[estimator][theme()] : MUTED[theme()];
  const whole = on || role === "point" || role === "line";
  return {
    ...trace,
    visible: whole && fits(estimator),
    opacity: role === "band" ? 0.15 : 1,
    fillcolor: color,
    marker: { ...trace.marker, color },
    line: { ...trace.line, color, ...(role === "line" && { width: on ? 2.2 : 1 }) },
    error_x: { ...trace.error_x, visible: on && Boolean(trace.error_x), color, thickness: 1.3, width: 0 },
    error_y: { ...trace.error_y, visible: on && Boolean(trace.error_y), color, thickness: 1.3, width: 0 },
  };
}

function dressed({ data, layout }) {
  const c = DATA.grid[state.c];
  const moved = (layout.annotations ?? []).map((one) =>
    ({ ...one, visible: one.name.split(" ")[1] * c > 10 ** layout.xaxis.range[0] })); // where the line is in sight
  const shapes = (layout.shapes ?? []).map((one) => (one.name === "C" ? { ...one, x0: c, x1: c } : one));
  const clear = "rgba(0,0,0,0)";
  const depth = ({ estimator, role }) => (role === "band" ? 0 : isOn(estimator) ? 2 : 1); // what stands out is on top
  const order = data.map(styled).sort((a, b) => depth(a.meta) - depth(b.meta));
  return {
    data: order,
    layout: {
      ...layout, annotations: moved, shapes, template: DATA.templates[theme()], paper_bgcolor: clear,
      plot_bgcolor: clear, font: { family: "system-ui, sans-serif", size: 12.5 },
      hoverlabel: { align: "left" }, modebar: { bgcolor: clear }, uirevision: layout.xaxis.title.text + layout.meta.note,
    },
  };
}

function draw(name) {
  const figure = shown[name];
  const box = byId(`figure-${name}`);
  const plot = box.querySelector(".plot");
  box.querySelector(".note").textContent = figure?.layout.meta.note ?? "";
  box.querySelector(".saves").hidden = !figure;
  plot.classList.toggle("empty", !figure);
  if (!figure) {
    Plotly.purge(plot);
    plot.textContent = "Not measured here.";
    return;
  }
  if (!plot.data) plot.replaceChildren();
  const { data, layout } = dressed(figure);
  const first = !plot.data;
  Plotly.react(plot, data, layout, CONFIG);
  if (first) plot.on("plotly_click", (event) => event.points[0].data.meta.estimator && toggle(event.points[0].data.meta.estimator));
}

function saveSvg(name) {
  const { data, layout } = dressed(shown[name]);
  const seen = new Set();
  for (const trace of data) {
    const { estimator, role } = trace.meta;
    trace.showlegend = isOn(estimator) && (role === "point" || role === "line") && !seen.has(trace.name);
    seen.add(trace.showlegend ? trace.name : null);
  }
  const background = getComputedStyle(document.body).backgroundColor;
  const whole = { ...layout, showlegend: true, paper_bgcolor: background, width: 1000, height: 560 };
  Plotly.downloadImage({ data, layout: whole }, { format: "svg", filename: name, width: 1000, height: 560 });
}

function saveCsv(name) {
  const quoted = (value) => (typeof value === "string" ? `"${value.replaceAll('"', '""')}"` : value ?? "");
  const { xaxis, yaxis } = shown[name].layout;
  const lines = [["estimator", "shown as", xaxis.title.text, yaxis.title.text]];
  for (const { meta, x, y, customdata } of shown[name].data) {
    if (!["point", "line", "seed"].includes(meta.role) || !fits(meta.estimator)) continue;
    const bent = meta.role === "point" && customdata; // of an axis that is not the value itself
    x.forEach((at, i) => lines.push([meta.estimator, meta.role, at, bent ? customdata[i] : y[i]]));
  }
  download(`${name}.csv`, lines.map((line) => line.map(quoted).join(",")).join("\n") + "\n");
}

// --- tables ---------------------------------------------------------------------------------------------------------

const grids = {};
let errors = {}; // at the C that is chosen
const ordering = $.fn.dataTable.ext.type.order;
const missingLast = (sign) => (a, b) => (a === b ? 0 : a === null ? 1 : b === null ? -1 : sign * (a - b));
ordering["measure-asc"] = missingLast(1);
ordering["measure-desc"] = missingLast(-1);

function grid(id, columns, data, options) {
  if (grids[id]) {
    for (const name of ["search", "order", "key"]) grids[id].off(name); // its end is no choice of the reader's
    grids[id].destroy();
    byId(id).replaceChildren();
  }
  const save = { extend: "csv", text: "CSV", filename: id, exportOptions: { columns: ".data", orthogonal: "export" } };
  grids[id] = $(byId(id)).DataTable({
    columns, data, order: [], autoWidth: false, keys: { keys: [13, 37, 38, 39, 40] },
    layout: { topStart: { buttons: [save] }, topEnd: "search", bottomStart: "info", bottomEnd: "paging" }, ...options,
  });
  grids[id].on("key", (event, api, key, cell, pressed) => {
    pressed.preventDefault(); // or the same key would press the first button of what opens
    if (key === 13) cell.node().querySelector("button")?.click();
  });
  return grids[id];
}

function measured(title, get, label) {
  const node = (line) => {
    const found = get(line);
    if (!Array.isArray(found)) {
      const failed = found.startsWith("failed");
      return element("span", found, failed ? { class: "failed", title: found } : { class: "missing" });
    }
    const button = element("button", found[4] + (found[6] ? " •" : ""), { type: "button", tabindex: "-1" });
    button.addEventListener("click", () => origin(line.label, label, found));
    return button;
  };
  const parts = [1, 2, 3].map((i, at) => ({
    title: `${title}: ${["low", "high", "n"][at]}`, visible: false, className: "data", type: "measure", data: null,
    render: (line) => (Array.isArray(get(line)) ? get(line)[i] ?? "" : ""),
  }));
  const value = {
    title, className: "data", type: "measure", data: null, searchable: false,
    render: (line, type) => {
      const found = get(line);
      if (type === "display") return node(line);
      if (type === "export") return Array.isArray(found) ? found[0] : found;
      return Array.isArray(found) ? found[0] : null;
    },
  };
  return [value, ...parts];
}

function numbers() {
  const here = DATA.tables[place().key];
  const names = Object.keys(DATA.quantities).filter((name) => Object.values(here).some((line) => name in line));
  const lines = Object.keys(here).filter(fits).map((label) => ({ label, ...DATA.estimators[label], numbers: here[label] }));
  const button = (line) => {
    const made = element("button", "", { type: "button", tabindex: "-1", "aria-pressed": isOn(line.label), "aria-label": `Highlight ${line.label}` });
    made.append(mark(line.label));
    made.addEventListener("click", () => toggle(line.label));
    return made;
  };
  const needs = ({ needs, reference }) => (reference ? "(reference)" : needs === null ? "not known" : ["values", ...needs].join(", "));
  const claim = ({ unbiased }) => (unbiased === null ? "" : unbiased ? "unbiased" : "biased");
  const error = (line) => errors[line.label] ?? "not measured";
  const withErrors = Object.keys(errors).length > 0;
  const columns = [
    { title: "", data: null, orderable: false, searchable: false, render: (line, type) => (type === "display" ? button(line) : "") },
    { title: "estimator", data: "label", className: "data", render: $.fn.dataTable.render.text() },
    { title: "needs", data: null, className: "data", render: needs },
    { title: "claims", data: null, className: "data", render: claim },
    ...(withErrors ? [{
      title: "error at C", data: null, className: "data", type: "measure", searchable: false,
      render: (line, type) => {
        const found = error(line);
        if (type === "sort" || type === "type") return Array.isArray(found) ? found[1] : null;
        return Array.isArray(found) ? found[0] : type === "display" ? element("span", found, { class: "missing" }) : found;
      },
    }] : []),
    ...names.flatMap((name) => measured(DATA.quantities[name], (line) => line.numbers[name] ?? "not measured", name)),
  ];
  const [title, direction] = state.order.split("|");
  const at = columns.findIndex((column) => column.title === title && title);
  const made = grid("numbers", columns, lines, {
    paging: false, search: { search: state.q }, order: at < 0 ? [] : [[at, direction]],
    rowCallback: (row, line) => row.classList.toggle("on", isOn(line.label)),
    language: { emptyTable: "No estimator needs so little." },
  });
  made.on("search", () => { state.q = made.search(); keep(); });
  made.on("order", () => {
    const [first] = made.order();
    state.order = first?.[1] ? `${columns[first[0]].title}|${first[1]}` : "";
    keep();
  });
}

function ranks() {
  const { tasks, lines } = DATA.ranks[state.measure];
  const shownLines = Object.keys(lines).filter(fits).map((label) => ({ label, ...lines[label] }));
  const cell = (name) => (line, type) => {
    const found = line[name] ?? "not measured";
    if (type === "sort" || type === "type") return Array.isArray(found) ? found[0] : null;
    if (type !== "display" || Array.isArray(found)) return Array.isArray(found) ? found[1] : found;
    return element("span", found, { class: found.startsWith("failed") ? "failed" : "missing", title: found });
  };
  grid("ranks", [
    { title: "estimator", data: "label", className: "data", render: (label, type) => {
      if (type !== "display") return label;
      const made = element("span", ` ${label}`);
      made.prepend(mark(label));
      return made;
    } },
    { title: "mean, 0 best", data: "mean", className: "data", type: "num" },
    { title: "tasks", data: "tasks", className: "data", type: "num", render: (n) => n },
    ...Object.entries(tasks).map(([name, what]) => ({
      title: state.measure === "final result" ? `${name}: ${what}` : name, data: null, className: "data", type: "measure", render: cell(name),
    })),
  ], shownLines, { order: [[2, "desc"], [1, "asc"]], pageLength: 12, rowCallback: (row, line) => row.classList.toggle("on", isOn(line.label)) });
}

const CELL = ["hash", "suite", "task", "estimator", "preset", "data set", "seed", "device", "dtype", "commit", "uncommitted changes",
  "torch", "numpy", "python", "seconds", "rows", "status", "message"];

function cells() {
  const text = $.fn.dataTable.render.text().display;
  grid("cells", CELL.map((title, i) => ({
    title, data: i, className: "data", type: ["seed", "seconds", "rows"].includes(title) ? "num" : "string",
    render: (value, type) => (value === null ? "" : title === "seconds" ? Number(value).toFixed(1) : type === "display" ? text(String(value)) : value),
  })), DATA.cells, { pageLength: 10, deferRender: true });
}

function onlyCells(number) {
  const one = DATA.statements.find((statement) => statement.number === number);
  grids.cells.search.fixed("statement", one ? (said, line) => one.cells.includes(line[0]) : null).draw();
  byId("only").hidden = !one;
  byId("only").querySelector("span").textContent = one ? `Cells read for statement ${number}.` : "";
  if (one) byId("provenance").scrollIntoView();
  if (one) byId("provenance").focus();
}

function origin(label, quantity, found) {
  const [value, low, high, n, text, rows, failed] = found;
  byId("origin-title").textContent = `${label}: ${DATA.quantities[quantity]}`;
  byId("origin-said").textContent = `${text}; ${place().label}.${failed ? ` Some cells failed: ${failed}.` : ""}`;
  const names = ["metric", "part, point", "value", "standard error", "n", "seed", "preset", "data set", "device", "dtype",
    "commit", "torch", "python", "cell"];
  const head = element("thead");
  head.append(element("tr"));
  names.forEach((name) => head.firstChild.append(element("th", name, { scope: "col" })));
  const body = element("tbody");
  for (const [hash, metric, where, ...measure] of rows.map((i) => DATA.rows[i])) {
    const cell = Object.fromEntries(CELL.map((name, i) => [name, DATA.cells.find((one) => one[0] === hash)[i]]));
    const commit = `${cell.commit?.slice(0, 12) ?? "unknown"}${cell["uncommitted changes"] ? ", with uncommitted changes" : ""}`;
    const line = element("tr");
    [metric, where, ...measure, cell.seed, cell.preset, cell["data set"], cell.device, cell.dtype, commit, cell.torch, cell.python, hash]
      .forEach((one) => line.append(element("td", one ?? "")));
    body.append(line);
  }
  byId("origin").querySelector("table").replaceChildren(head, body);
  byId("origin").showModal();
}

// --- everything -----------------------------------------------------------------------------------------------------

function legend() {
  const labels = DATA.order.filter((label) => label in DATA.tables[place().key] || isOn(label));
  const chip = (label) => {
    const made = element("button", "", { type: "button", "aria-pressed": isOn(label), "data-label": label });
    made.append(mark(label), label);
    made.addEventListener("click", () => toggle(label));
    return made;
  };
  byId("chosen").replaceChildren(...labels.filter(isOn).map(chip));
  byId("others").replaceChildren(...labels.filter((label) => !isOn(label)).map(chip));
  byId("count").textContent = `${state.on.length} highlighted in every figure; choose others`;
}

function answer() {
  const items = Object.entries(DATA.ranks).flatMap(([name, { tasks, lines }]) => {
    if (!(state.task in tasks)) return [];
    const able = Object.keys(lines).filter((label) => fits(label) && Array.isArray(lines[label][state.task]));
    const best = Math.min(...able.map((label) => lines[label][state.task][0]));
    const first = able.filter((label) => lines[label][state.task][0] === best);
    const said = first.slice(0, 3).join(", ") + (first.length > 3 ? ` and ${first.length - 3} more` : "");
    const what = { "final result": tasks[state.task], "variance × cost": "variance × cost, bias aside" }[name] ?? name;
    return able.length ? [element("li", `Best by ${what}: ${said}, rank ${lines[first[0]][state.task][1]}.`)] : [];
  });
  byId("answer").replaceChildren(...items);
}

function errorsAtC() {
  const figure = shown.error;
  const found = {};
  for (const { meta, y, customdata } of figure?.data ?? []) {
    if (meta.role !== "line" || !fits(meta.estimator)) continue;
    const [low, high] = customdata[state.c];
    found[meta.estimator] = [`${y[state.c]} (${low} to ${high})`, y[state.c], low, high];
  }
  const able = Object.keys(found).sort((a, b) => found[a][1] - found[b][1]);
  const same = able.slice(1).filter((label) => found[label][2] <= found[able[0]][3]);
  byId("best").textContent = able.length
    ? `Smallest error / ‖∇‖² at C = ${DATA.grid[state.c]}: ${able[0]}, ${found[able[0]][0]}. ` +
      (same.length ? `Intervals that overlap with its own: ${same.slice(0, 4).join(", ")}${same.length > 4 ? ` and ${same.length - 4} more` : ""}.` : "No other interval overlaps with its own.")
    : "";
  return found;
}

function render() {
  const dark = theme() === "dark";
  document.documentElement.classList.toggle("dark", dark);
  byId("theme").setAttribute("aria-pressed", dark);
  const of = DATA.tasks.map(({ name, title }) => [name, title]);
  choices("task", of, state.task);
  const label = choices("place", task().places.map((one) => [one.label, one.label]), state.place);
  state.place = label === task().places[0].label ? "" : label;
  const groups = place().groups.map(([part, point]) => [`${part}|${point}`, `${part}, ${point} q`]);
  const middle = groups.find(([key]) => key === "logits|mid")?.[0] ?? groups[0]?.[0];
  const group = choices("group", groups, state.group || middle);
  const curve = choices("curve", Object.entries(place().curves), state.curve);
  for (const name of ["x", "measure", "profile"]) byId(name).value = state[name];
  byId("c").value = state.c;
  byId("c-value").textContent = DATA.grid[state.c];
  for (const box of document.querySelectorAll("[name=has]")) box.checked = state.has.includes(box.value);
  byId("unbiased").checked = Boolean(state.unbiased);
  byId("title").textContent = `${task().title} (${place().label})`;
  Object.assign(shown, {
    bias: DATA.figures[state.x][`${place().key}|${group}`], error: DATA.figures.error[`${place().key}|${group}`],
    curve: DATA.figures.curve[`${place().key}|${curve}`], accuracy: DATA.figures.accuracy[place().key],
    profile: DATA.figures.profile[state.profile],
  });
  errors = errorsAtC();
  legend();
  answer();
  numbers();
  ranks();
  Object.keys(shown).forEach(draw);
  keep();
}

function redraw(tables, figures) {
  for (const name of tables) grids[name].rows().invalidate().draw(false);
  figures.forEach(draw);
  keep();
}

function highlight() {
  legend();
  redraw(["numbers", "ranks"], Object.keys(shown));
}

function slide() {
  byId("c-value").textContent = DATA.grid[state.c];
  errors = errorsAtC();
  redraw(["numbers"], ["bias", "error"]);
}

for (const name of ["task", "place", "group", "x", "curve", "measure", "profile"]) {
  byId(name).addEventListener("change", (event) => {
    state[name] = event.target.value;
    if (name === "task") Object.assign(state, { place: "", group: "", curve: "" });
    render();
  });
}
byId("c").addEventListener("input", (event) => { state.c = event.target.value; slide(); });
byId("unbiased").addEventListener("change", (event) => { state.unbiased = event.target.checked ? "1" : ""; render(); });
byId("has").addEventListener("change", () => {
  state.has = NEEDS.filter((name) => document.querySelector(`[name=has][value=${name}]`).checked);
  render();
});
byId("none").addEventListener("click", () => { state.on = []; highlight(); });
byId("theme").addEventListener("click", () => { state.theme = theme() === "dark" ? "light" : "dark"; render(); });
byId("reset").addEventListener("click", () => { state = { ...DEFAULTS }; render(); });
byId("link").addEventListener("click", async ({ target }) => {
  try {
    await navigator.clipboard.writeText(location.href);
    target.textContent = "Copied";
  } catch {
    target.textContent = "Copy it from the address bar";
  }
  setTimeout(() => { target.textContent = "Copy link"; }, 2000);
});
byId("skip").addEventListener("click", (event) => { event.preventDefault(); byId("compare").focus(); });
byId("all").addEventListener("click", () => onlyCells(0));
for (const button of document.querySelectorAll("[data-statement]")) button.addEventListener("click", () => onlyCells(Number(button.dataset.statement)));
for (const button of document.querySelectorAll("[data-svg]")) button.addEventListener("click", () => saveSvg(button.dataset.svg));
for (const button of document.querySelectorAll("[data-csv]")) button.addEventListener("click", () => saveCsv(button.dataset.csv));
addEventListener("hashchange", () => { restore(); render(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => render());

byId("c").max = DATA.grid.length - 1;
choices("measure", Object.keys(DATA.ranks).map((name) => [name, name]), DEFAULTS.measure);
choices("profile", Object.keys(DATA.figures.profile).map((name) => [name, name]), DEFAULTS.profile);
restore();
cells();
render();
document.body.dataset.ready = "yes";
