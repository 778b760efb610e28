// Charts as SVG: scales, ticks, layers with a legend, tooltips, keyboard focus and CSV.
"use strict";

const SVG = "http://www.w3.org/2000/svg";

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

function svg(tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value != null) node.setAttribute(name, value);
  }
  if (text != null) node.textContent = text;
  return node;
}

// Numbers as the command line prints them: four significant digits, exponents outside 1e-3 to 1e4.
function format4(value) {
  if (value == null || !Number.isFinite(value)) return "–";
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e4)) {
    const [mantissa, exponent] = value.toExponential(3).split("e");
    return `${mantissa.replace(/\.?0+$/, "")}e${Number(exponent)}`;
  }
  return String(Number(value.toPrecision(4)));
}

function interval4(pair) {
  return pair && pair[0] != null ? ` [${format4(pair[0])}, ${format4(pair[1])}]` : "";
}

function count(value) {
  for (const [scale, letter] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
    if (value >= 0.9995 * scale) return Number((value / scale).toPrecision(3)) + letter;
  }
  return String(Number(value.toPrecision(3)));
}

function power(value) {
  const [mantissa, exponent] = value.toExponential(2).split("e");
  const digits = [...String(Number(exponent))].map((d) => (d === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[d])).join("");
  const head = String(Number(mantissa));
  return (head === "1" ? "" : `${head}×`) + `10${digits}`;
}

const plain = (value) => String(Number(value.toPrecision(4)));
const probability = (share) => (share < 0.001 ? "<0.1%" : share > 0.999 ? ">99.9%" : `${(100 * share).toFixed(1)}%`);
const percent = (value) => `${value > 0 ? "+" : ""}${Number((100 * value).toPrecision(2))} %`;

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

// Viridis without its faintest end on either background.
const VIRIDIS = ["#440154", "#482878", "#3e4a89", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];

function viridis(t) {
  const low = isDark() ? 0.3 : 0, high = isDark() ? 1 : 0.82;
  const at = (low + (high - low) * Math.min(1, Math.max(0, t))) * (VIRIDIS.length - 1);
  const first = Math.min(VIRIDIS.length - 2, Math.floor(at)), share = at - first;
  const channel = (hex, k) => parseInt(hex.slice(1 + 2 * k, 3 + 2 * k), 16);
  const mixed = [0, 1, 2].map((k) =>
    Math.round(channel(VIRIDIS[first], k) * (1 - share) + channel(VIRIDIS[first + 1], k) * share));
  return `rgb(${mixed.join(",")})`;
}

function scale(axis, values, from, to) {
  const usable = values.filter((v) => Number.isFinite(v) && (!axis.log || v > 0));
  let low = axis.min ?? Math.min(...usable), high = axis.max ?? Math.max(...usable);
  if (!usable.length) [low, high] = axis.log ? [1, 10] : [0, 1];
  const f = axis.log ? Math.log : (v) => v, inverse = axis.log ? Math.exp : (v) => v;
  let a = f(low), b = f(high);
  const margin = (b - a || Math.abs(a) * 0.1 || 1) * 0.045;
  if (axis.min == null) a -= margin;
  if (axis.max == null) b += margin;
  const map = (v) => from + ((f(v) - a) / (b - a)) * (to - from);
  return { map, low: inverse(a), high: inverse(b), log: !!axis.log };
}

function linearTicks(low, high, most) {
  const rough = (high - low) / most, unit = 10 ** Math.floor(Math.log10(rough));
  const steps = [0.5, 1, 2, 2.5, 5, 10].map((m) => m * unit), at = steps.findIndex((s) => s >= rough * 0.999);
  const few = Math.floor(high / steps[at]) - Math.ceil(low / steps[at]) < 2; // fewer than three ticks
  const step = steps[few ? at - 1 : at], ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high * (1 + 1e-12) + 1e-12; k++) {
    ticks.push(Number((k * step).toPrecision(10)));
  }
  return ticks;
}

function ticks(found, most) {
  const { low, high, log } = found;
  if (!log || high / low < 4) return linearTicks(low, high, most);
  for (const subs of [[1, 1.5, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]]) {
    const shown = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
      for (const sub of subs) {
        const value = Number((sub * 10 ** e).toPrecision(6));
        if (value >= low && value <= high) shown.push(value);
      }
    }
    if (shown.length <= most) return shown;
  }
  const decades = [], first = Math.ceil(Math.log10(low)), last = Math.floor(Math.log10(high));
  const stride = Math.ceil((last - first + 1) / most);
  for (let e = first; e <= last; e += stride) decades.push(10 ** e);
  return decades;
}

// Visibility of layers by group: charts of one group share it.
const hiddenLayers = new Map();

function isHidden(group, layer) {
  const known = hiddenLayers.get(`${group} ${layer.name}`);
  return known === undefined ? !!layer.off : known;
}

function toggleLayer(group, layer) {
  hiddenLayers.set(`${group} ${layer.name}`, !isHidden(group, layer));
  for (const chart of charts) if (chart.group === group) chart.draw();
  changed();
}

const charts = [];
let chartNumber = 0;
let onPaper = false; // figures have the widths of a printed page then, not those of the window
const PAPER = { wide: 690, narrow: 330 }; // CSS pixels of A4 and Letter between margins

class Chart {
  // spec: {id, title, note, wide, group, legend, x, y, beyond, layers: (function), csv, height}
  constructor(host, spec) {
    Object.assign(this, { spec, group: spec.group || spec.id, at: -1, targets: [], lines: [] });
    this.root = svg("svg", { role: "group", tabindex: "0", "aria-label": `${spec.title}: arrow keys move between points, Enter picks a run` });
    this.tip = el("div", { class: "tip", hidden: true });
    this.legend = el("ul", { class: "legend", "aria-label": "legend" });
    this.figure = el("figure", { id: spec.id, class: spec.wide ? "wide" : null },
      el("figcaption", {}, el("span", {}, spec.title),
        spec.csv ? el("button", { type: "button", onclick: () => saveCsv(spec.id, spec.csv()) , "aria-label": `CSV of ${spec.title}`}, "CSV") : null,
        el("button", { type: "button", onclick: () => saveSvg(this), "aria-label": `SVG of ${spec.title}` }, "SVG")),
      this.root, spec.legend === false ? null : this.legend,
      spec.note ? el("p", { class: "note" }, spec.note) : null, this.tip);
    host.append(this.figure);
    this.clip = `clip${++chartNumber}`;
    this.root.addEventListener("mousemove", (event) => this.hover(event));
    this.root.addEventListener("mouseleave", () => this.leave());
    this.root.addEventListener("click", () => this.pick());
    this.root.addEventListener("keydown", (event) => this.key(event));
    this.root.addEventListener("blur", () => this.leave());
    charts.push(this);
    this.draw();
  }

  layers() {
    return this.spec.layers().filter((layer) => !isHidden(this.group, layer));
  }

  draw() {
    const { spec } = this, width = onPaper ? PAPER[spec.wide ? "wide" : "narrow"] : Math.max(260, this.figure.clientWidth || 560);
    const height = (!onPaper && spec.height) || Math.round(Math.min(400, Math.max(240, width * 0.62)));
    const layers = this.layers(), items = layers.flatMap((layer) => layer.items);
    const box = { left: 58, right: width - 12, top: 10, bottom: height - 42 };
    const labels = () => ticks(this.y, Math.max(3, Math.floor((box.bottom - box.top) / 40))).map(spec.y.format || plain);
    const xs = items.flatMap((item) => item.outside ? [] : [...(item.x || []), ...(item.xlo || []), ...(item.xhi || [])]);
    const ys = items.flatMap((item) => item.outside ? [] : [...(item.y || []), ...(item.lo || []), ...(item.hi || [])]);
    this.y = scale(spec.y, ys, box.bottom, box.top);
    box.left = 30 + 6.8 * Math.max(3, ...labels().map((label) => label.length));
    this.x = scale(spec.x, xs, box.left, box.right);
    this.targets = []; this.lines = [];
    this.root.replaceChildren();
    this.root.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.axes(box);
    const clip = svg("clipPath", { id: this.clip });
    clip.append(svg("rect", { x: box.left, y: box.top - 6, width: box.right - box.left + 8, height: box.bottom - box.top + 12 }));
    this.root.append(clip);
    const body = svg("g", { "clip-path": `url(#${this.clip})` });
    this.root.append(body);
    for (const layer of layers) for (const item of layer.items) this.item(body, item, layer, box);
    if (spec.marker && spec.marker() != null) {
      const px = this.x.map(spec.marker());
      if (px >= box.left && px <= box.right) body.append(svg("line", { x1: px, x2: px, y1: box.top, y2: box.bottom, class: "litline", "stroke-dasharray": "2 4" }));
    }
    this.overlay = svg("g", {});
    this.root.append(this.overlay);
    this.box = box;
    this.drawLegend();
    this.light(state.run);
  }

  axes(box) {
    const { spec } = this;
    if (spec.beyond) {
      const px = Math.max(box.left, this.x.map(spec.beyond));
      if (px < box.right - 4) {
        this.root.append(svg("rect", { x: px, y: box.top, width: box.right - px, height: box.bottom - box.top, class: "beyond" }));
        if (box.right - px > 92) this.root.append(svg("text", { x: px + 5, y: spec.beyondAtTop ? box.top + 14 : box.bottom - 6, class: "axis halo" }, "beyond the data"));
      }
    }
    const xFormat = spec.x.format || plain, yFormat = spec.y.format || plain;
    let last = -Infinity;
    for (const value of ticks(this.x, Math.max(3, Math.floor((box.right - box.left) / 72)))) {
      const px = this.x.map(value), label = xFormat(value), half = 3.4 * label.length;
      this.root.append(svg("line", { x1: px, x2: px, y1: box.top, y2: box.bottom, class: "grid" }));
      if (px - half < last + 6 || px + half > box.right + 12) continue;
      last = px + half;
      this.root.append(svg("text", { x: px, y: box.bottom + 16, "text-anchor": "middle", class: "axis" }, label));
    }
    for (const value of ticks(this.y, Math.max(3, Math.floor((box.bottom - box.top) / 40)))) {
      const py = this.y.map(value);
      this.root.append(svg("line", { x1: box.left, x2: box.right, y1: py, y2: py, class: "grid" }));
      this.root.append(svg("text", { x: box.left - 6, y: py + 4, "text-anchor": "end", class: "axis" }, yFormat(value)));
    }
    this.root.append(svg("path", { d: `M${box.left},${box.top}V${box.bottom}H${box.right}`, class: "frame" }));
    this.root.append(svg("text", { x: (box.left + box.right) / 2, y: box.bottom + 35, "text-anchor": "middle" }, spec.x.label));
    const middle = (box.top + box.bottom) / 2;
    this.root.append(svg("text", { x: 12, y: middle, transform: `rotate(-90 12 ${middle})`, "text-anchor": "middle" }, spec.y.label));
  }

  path(xs, ys) {
    let d = "", pen = false;
    for (let i = 0; i < xs.length; i++) {
      const px = this.x.map(xs[i]), py = this.y.map(ys[i]);
      const known = xs[i] != null && ys[i] != null && Number.isFinite(px) && Number.isFinite(py);
      if (known) d += `${pen ? "L" : "M"}${px.toFixed(1)},${Math.max(-9e3, Math.min(9e3, py)).toFixed(1)}`;
      pen = known;
    }
    return d;
  }

  item(body, item, layer, box) {
    const color = resolve(item.color || layer.color);
    if (item.type === "line") {
      const path = svg("path", { d: this.path(item.x, item.y), fill: "none", stroke: color, "stroke-width": item.width || 1.8,
        "stroke-dasharray": item.dash, opacity: item.opacity });
      body.append(path);
      if (item.run != null) this.lines.push({ run: item.run, d: path.getAttribute("d") });
    } else if (item.type === "band") {
      const back = this.path([...item.x].reverse(), [...item.hi].reverse()).replace("M", "L");
      const d = this.path(item.x, item.lo) + back;
      if (d) body.append(svg("path", { d: `${d}Z`, fill: color, opacity: item.opacity || 0.16, stroke: "none" }));
    } else if (item.type === "hline") {
      const py = this.y.map(item.y[0]);
      body.append(svg("line", { x1: box.left, x2: box.right, y1: py, y2: py, stroke: color, "stroke-dasharray": item.dash }));
    } else if (item.type === "bars") {
      for (let i = 0; i < item.x.length; i++) {
        if (item.lo[i] == null || item.hi[i] == null) continue;
        const px = this.x.map(item.x[i]), [a, b] = [this.y.map(item.lo[i]), this.y.map(item.hi[i])];
        body.append(svg("path", { d: `M${px},${a}V${b}M${px - 4},${a}h8M${px - 4},${b}h8`, stroke: color, fill: "none", "stroke-width": 1.3 }));
      }
    } else if (item.type === "hbars") {
      for (let i = 0; i < item.y.length; i++) {
        if (item.xlo[i] == null || item.xhi[i] == null) continue;
        const py = this.y.map(item.y[i]), [a, b] = [this.x.map(item.xlo[i]), this.x.map(item.xhi[i])];
        body.append(svg("path", { d: `M${a},${py}H${b}M${a},${py - 4}v8M${b},${py - 4}v8`, stroke: color, fill: "none", "stroke-width": 1.3 }));
      }
    } else if (item.type === "label") {
      body.append(svg("text", { x: this.x.map(item.x[0]), y: this.y.map(item.y[0]) + 4, dx: item.dx, "text-anchor": item.anchor || "middle", class: "small" }, item.text));
    } else {
      this.dots(body, item, color, box);
    }
  }

  dots(body, item, color, box) {
    for (let i = 0; i < item.x.length; i++) {
      const px = this.x.map(item.x[i]), py = item.top ? box.top + 4 : this.y.map(item.y[i]);
      if (!Number.isFinite(px) || !Number.isFinite(py) || item.x[i] == null || (!item.top && item.y[i] == null)) continue;
      if (!item.ghost) body.append(mark(item.shape || "dot", px, py, color, item.size || 4));
      this.targets.push({ px, py, run: item.runs ? item.runs[i] : null, text: item.text ? item.text(i) : "" });
    }
  }

  drawLegend() {
    this.legend.replaceChildren(...this.spec.layers().filter((layer) => layer.legend !== false).map((layer) => legendEntry(layer, this.group)));
  }

  light(run) {
    if (!this.overlay) return;
    this.overlay.replaceChildren();
    if (run == null) return;
    for (const line of this.lines) if (line.run === run) this.overlay.append(svg("path", { d: line.d, class: "litline" }));
    for (const target of this.targets) if (target.run === run) this.overlay.append(svg("circle", { cx: target.px, cy: target.py, r: 8, class: "ring" }));
  }

  hover(event) {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(this.root.getScreenCTM().inverse());
    let best = -1, distance = 22 ** 2;
    this.targets.forEach((target, i) => {
      const d = (target.px - point.x) ** 2 + (target.py - point.y) ** 2;
      if (d < distance) [best, distance] = [i, d];
    });
    if (best < 0) return this.leave();
    this.show(best);
  }

  show(index) {
    this.at = index;
    const target = this.targets[index], drawing = this.root.getBoundingClientRect();
    const ratio = drawing.width / this.root.viewBox.baseVal.width || 1;
    this.light(state.run);
    this.overlay.append(svg("circle", { cx: target.px, cy: target.py, r: 7, class: "focusring" }));
    this.tip.textContent = target.text;
    this.tip.hidden = !target.text;
    const left = target.px * ratio, room = this.figure.clientWidth - this.tip.offsetWidth;
    this.tip.style.left = `${Math.max(0, Math.min(room, left + 12))}px`;
    this.tip.style.top = `${drawing.top - this.figure.getBoundingClientRect().top + target.py * ratio + 14}px`;
  }

  leave() {
    if (this.at < 0) return;
    this.at = -1;
    this.tip.hidden = true;
    this.light(state.run);
  }

  pick() {
    if (this.at < 0 || this.targets[this.at].run == null) return;
    pickRun(this.targets[this.at].run);
    this.show(this.at);
  }

  key(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step && this.targets.length) {
      const order = this.targets.map((_, i) => i).sort((a, b) => this.targets[a].px - this.targets[b].px);
      const now = order.indexOf(this.at), next = this.at < 0 ? (step > 0 ? 0 : order.length - 1) : now + step;
      this.show(order[(next + order.length) % order.length]);
      say(this.targets[this.at].text.replaceAll("\n", ", "));
    } else if (event.key === "Enter" || event.key === " ") this.pick();
    else if (event.key === "Escape") { this.leave(); pickRun(null); } else return;
    event.preventDefault();
  }
}

function resolve(color) {
  const found = typeof color === "function" ? color() : color;
  return found || "currentColor";
}

function mark(shape, x, y, color, size) {
  if (shape === "cross") {
    return svg("path", { d: `M${x - size},${y - size}l${2 * size},${2 * size}M${x - size},${y + size}l${2 * size},${-2 * size}`, stroke: color, "stroke-width": 2, fill: "none" });
  }
  if (shape === "diamond" || shape === "open") {
    const s = size + 1.5;
    return svg("path", { d: `M${x},${y - s}l${s},${s}l${-s},${s}l${-s},${-s}Z`, fill: shape === "open" ? "var(--bg)" : color, stroke: color, "stroke-width": 1.5 });
  }
  if (shape === "triangle") return svg("path", { d: `M${x - size},${y + size}h${2 * size}l${-size},${-2 * size}Z`, fill: color });
  return svg("circle", { cx: x, cy: y, r: size, fill: color });
}

function swatch(layer) {
  const picture = svg("svg", { viewBox: "0 0 22 12", "aria-hidden": "true" }), color = resolve(layer.color);
  const item = layer.items.find((one) => one.type === "line") || layer.items[0] || { type: "line" };
  if (item.type === "line" || item.type === "band" || item.type === "hline") {
    if (item.type === "band") picture.append(svg("rect", { x: 1, y: 2, width: 20, height: 8, fill: color, opacity: 0.3 }));
    else picture.append(svg("path", { d: "M1,6H21", stroke: color, "stroke-width": 2.2, "stroke-dasharray": item.dash }));
  }
  const dots = layer.items.find((one) => one.type === "dots" && !one.ghost);
  if (dots) picture.append(mark(dots.shape || "dot", 11, 6, resolve(dots.color || layer.color), 3.5));
  return picture;
}

function legendEntry(layer, group) {
  const shown = !isHidden(group, layer);
  return el("li", {}, el("button", { type: "button", "aria-pressed": String(shown), title: layer.title, onclick: () => toggleLayer(group, layer) },
    swatch(layer), layer.name));
}

function csvCell(value) {
  let text = value == null ? "" : String(value);
  if (/^[=+\-@\t\r]/.test(text) && !Number.isFinite(Number(text))) text = `'${text}`; // no formulas in spreadsheets
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function download(name, type, text) {
  const link = el("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function saveCsv(id, rows) {
  download(`${id}.csv`, "text/csv", rows.map((row) => row.map(csvCell).join(",")).join("\n") + "\n");
}

// The drawing alone, with the colours of the style sheet written into it.
function saveSvg(chart) {
  const copy = chart.root.cloneNode(true), style = getComputedStyle(document.documentElement);
  const paint = (name) => style.getPropertyValue(name).trim();
  copy.setAttribute("xmlns", SVG);
  copy.setAttribute("color", paint("--fg"));
  copy.setAttribute("font-family", "sans-serif");
  for (const node of copy.querySelectorAll("*")) {
    const kind = node.getAttribute("class");
    if (node.tagName === "text") { node.setAttribute("fill", paint(kind?.startsWith("axis") ? "--muted" : "--fg")); node.setAttribute("font-size", "12"); }
    if (kind === "grid") node.setAttribute("stroke", paint("--grid"));
    if (kind === "frame") { node.setAttribute("stroke", paint("--muted")); node.setAttribute("fill", "none"); }
    if (kind === "beyond") node.setAttribute("fill", paint("--beyond"));
    if (["ring", "litline", "focusring"].includes(kind)) { node.setAttribute("stroke", paint("--lit")); node.setAttribute("fill", "none"); }
    if (node.getAttribute("fill") === "var(--bg)") node.setAttribute("fill", paint("--bg"));
  }
  download(`${chart.spec.id}.svg`, "image/svg+xml", new XMLSerializer().serializeToString(copy));
}
