// The page: sections from the document, the calculator, the picked run, and the state in the URL.
"use strict";

const page = JSON.parse(document.getElementById("data").textContent);
const state = { study: 0, run: null, flops: null, without: null, mode: "budget", filter: "", sort: ["flops", 1], device: null };
const byId = (id) => document.getElementById(id);
const current = () => page.studies[state.study];
const say = (text) => { byId("live").textContent = text; };

// ---- state in the URL ------------------------------------------------------------------------------
function readHash() {
  const given = new URLSearchParams(location.hash.slice(1));
  const arm = page.studies.findIndex((study) => study.arm === given.get("arm"));
  if (arm > 0) state.study = arm;
  const flops = Number(given.get("C"));
  if (flops > 0) state.flops = flops;
  if (given.get("run")) { const row = current().runs.label.indexOf(given.get("run")); if (row >= 0) state.run = row; }
  state.without = given.get("without");
  state.filter = given.get("filter") || "";
  if (["budget", "hours", "money", "loss"].includes(given.get("ask"))) state.mode = given.get("ask");
  for (const entry of given.getAll("show")) hiddenLayers.set(entry, false);
  for (const entry of given.getAll("hide")) hiddenLayers.set(entry, true);
  if (["light", "dark"].includes(given.get("theme"))) document.documentElement.dataset.theme = given.get("theme");
}

function changed() {
  const kept = new URLSearchParams();
  if (current().arm != null) kept.set("arm", current().arm);
  if (state.asked) kept.set("C", format4(state.flops));
  if (state.mode !== "budget") kept.set("ask", state.mode);
  if (state.run != null) kept.set("run", current().runs.label[state.run]);
  if (state.without) kept.set("without", state.without);
  if (state.filter) kept.set("filter", state.filter);
  for (const [name, hidden] of hiddenLayers) kept.append(hidden ? "hide" : "show", name);
  if (document.documentElement.dataset.theme) kept.set("theme", document.documentElement.dataset.theme);
  const hash = kept.toString();
  history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
}

async function copy(text, button) {
  let done = true;
  try { await navigator.clipboard.writeText(text); } catch {
    const area = el("textarea", { "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
  }
  say(done ? "copied" : "copying is not allowed here");
  const label = button.textContent;
  button.textContent = done ? "Copied" : "Not allowed here";
  setTimeout(() => { button.textContent = label; }, 1200);
}

const copyButton = (label, text) => el("button", { type: "button", onclick: (event) => copy(text(), event.currentTarget) }, label);

function markdown(study) {
  const lines = [`**${page.title}${study.arm == null ? "" : `, arm ${study.arm}`}**`, ""];
  lines.push(...study.sentences.map((one) => `- ${one.text}`));
  if (study.validation) lines.push(`- ${study.validation}`);
  lines.push("", `${study.caption}; made with sweep ${page.version} at ${page.generated_at}`);
  return lines.join("\n");
}

// ---- the calculator --------------------------------------------------------------------------------
function interpolate(xs, ys, x) {
  if (!ys || x < xs[0] * (1 - 1e-9) || x > xs.at(-1) * (1 + 1e-9)) return null;
  let low = 0, high = xs.length - 1;
  while (high - low > 1) { const middle = (low + high) >> 1; if (xs[middle] <= x) low = middle; else high = middle; }
  if (ys[low] == null || ys[high] == null) return null;
  const share = Math.min(1, Math.max(0, Math.log(x / xs[low]) / Math.log(xs[high] / xs[low])));
  return Math.exp(Math.log(ys[low]) * (1 - share) + Math.log(ys[high]) * share);
}

// The answer at a budget, as sweep predict gives it; null outside the grid.
function answerAt(ask, flops) {
  const found = { flops, reach: flops / ask.flops_max, interval: {} };
  for (const [name, values] of Object.entries(ask.estimate)) found[name] = interpolate(ask.flops, values, flops);
  for (const [name, ends] of Object.entries(ask.interval)) found.interval[name] = ends.map((end) => interpolate(ask.flops, end, flops));
  return found.n_params_opt == null ? null : found;
}

function runAt(ask, flops) {
  if (!ask.runs.n_params) return null;
  let best = 0;
  ask.flops.forEach((c, k) => { if (Math.abs(Math.log(c / flops)) < Math.abs(Math.log(ask.flops[best] / flops))) best = k; });
  return Object.fromEntries(Object.entries(ask.runs).map(([name, values]) => [name, values[best]]));
}

function budgetOfLoss(ask, loss) {
  const losses = ask.estimate.loss_opt;
  if (loss > losses[0] || loss < losses.at(-1)) return null;
  let k = losses.findIndex((value) => value <= loss);
  k = Math.max(1, k);
  const share = Math.log(losses[k - 1] / loss) / Math.log(losses[k - 1] / losses[k]);
  return Math.exp(Math.log(ask.flops[k - 1]) * (1 - share) + Math.log(ask.flops[k]) * share);
}

function buildAsk(host) {
  const study = current(), ask = study.ask;
  if (!ask) {
    host.append(el("p", { class: "refused" }, study.refused ? `There is no answer: ${study.refused}` : "There is no answer to ask: the fit has none."));
    if (study.suggest) host.append(el("p", {}, "The runs that an answer lacks are named by ", el("code", {}, study.suggest)));
    return;
  }
  if (!state.asked) state.flops = Number(ask.flops_max.toPrecision(3));
  const slider = el("input", { type: "range", min: "0", max: "1000", step: "1", id: "ask-slider", "aria-label": "training compute in FLOPs, on a log scale" });
  const input = (id, value, width) => el("input", { type: "text", inputmode: "decimal", id, value, size: width || 10, autocomplete: "off" });
  const fields = {
    flops: input("ask-flops", ""), hours: input("ask-hours", "24"), gpus: input("ask-gpus", "1", 4), money: input("ask-money", "100"),
    price: input("ask-price", page.price_per_hour || "2"), mfu: input("ask-mfu", format4(100 * study.mfu.value), 5), loss: input("ask-loss", ""),
  };
  const device = el("select", { id: "ask-device" }, ...Object.keys(page.devices).map((name) => el("option", { value: name }, name)));
  device.value = page.devices.H100 ? "H100" : Object.keys(page.devices)[0];
  const mode = el("select", { id: "ask-mode" }, ...[["budget", "a budget in FLOPs"], ["hours", "GPU-hours"], ["money", "money"], ["loss", "a target loss"]]
    .map(([value, text]) => el("option", { value, selected: value === state.mode }, text)));
  const row = (label, id, ...nodes) => el("div", { class: "field" }, el("label", { for: id }, label), ...nodes);
  const rows = {
    flops: row("FLOPs", "ask-flops", fields.flops),
    hours: row("hours × GPUs", "ask-hours", fields.hours, "×", fields.gpus),
    money: row("money", "ask-money", fields.money, "at", fields.price, "per GPU-hour"),
    gpu: row("GPU", "ask-device", device, "at", fields.mfu, `% of its peak${study.mfu.measured ? " (median of the runs)" : " (assumed)"}`),
    loss: row("loss (nats per token)", "ask-loss", fields.loss),
  };
  const message = el("p", { class: "note", id: "ask-message", role: "status" });
  const answers = el("dl", { class: "answers", id: "ask-answers" });
  const output = el("div", { class: "panel", id: "ask-output" }, answers, message);
  const [low, high] = [Math.log(ask.flops[0]), Math.log(ask.limit)];
  const setSlider = (flops) => { slider.value = String(Math.round((1000 * (Math.log(flops) - low)) / (high - low))); };
  const rate = () => page.devices[device.value] * Number(fields.mfu.value) / 100;
  const sources = {
    budget: () => Number(fields.flops.value),
    hours: () => Number(fields.hours.value) * Number(fields.gpus.value) * 3600 * rate(),
    money: () => (Number(fields.money.value) / Number(fields.price.value)) * 3600 * rate(),
    loss: () => budgetOfLoss(ask, Number(fields.loss.value)),
  };
  const show = (flops) => {
    state.flops = flops;
    const found = Number.isFinite(flops) && flops > 0 ? answerAt(ask, flops) : null;
    output.classList.toggle("far", !!found && found.reach > 1.0001);
    answers.replaceChildren();
    buttons.hidden = !found;
    message.className = "note";
    if (!found) {
      message.className = "refused";
      message.textContent = refusal(ask, flops, state.mode);
    } else {
      const entry = (name, key, value, interval) => answers.append(el("dt", {}, name), el("dd", { "data-key": key, "data-value": value, "data-low": interval?.[0], "data-high": interval?.[1] },
        el("b", {}, format4(value)), interval4(interval)));
      entry("C (FLOPs)", "flops", flops);
      entry("N (parameters)", "n_params_opt", found.n_params_opt, found.interval.n_params_opt);
      entry("D (tokens)", "n_tokens_opt", found.n_tokens_opt, found.interval.n_tokens_opt);
      entry("D / N", "tokens_per_param_opt", found.tokens_per_param_opt, found.interval.tokens_per_param_opt);
      entry("loss", "loss_opt", found.loss_opt, found.interval.loss_opt);
      if (found.interval.loss_run?.[0] != null) answers.append(el("dt", {}, "loss of one new run"), el("dd", {}, interval4(found.interval.loss_run)));
      const run = runAt(ask, flops);
      if (run) answers.append(el("dt", {}, "run to train"), el("dd", { id: "ask-shape" }, `d_model ${run.d_model}, n_layers ${run.n_layers}, n_heads ${run.n_heads}, N ${format4(run.n_params)}, batch ${run.batch_tokens} tokens, lr ${format4(run.lr_peak)}`));
      const reach = found.reach > 1.0001 ? `Extrapolated: ${format4(found.reach)} times the largest fitted budget. ` : "";
      message.textContent = `${reach}${Math.round(100 * ask.confidence)} % intervals.${run?.notes?.length ? ` ${run.notes.join("; ")}.` : ""}`;
    }
    for (const chart of charts) if (chart.spec.marker) chart.draw();
  };
  const update = (from) => {
    state.asked = true;
    if (from === "slider") {
      const flops = Number(Math.exp(low + (Number(slider.value) / 1000) * (high - low)).toPrecision(3));
      fields.flops.value = format4(Math.min(flops, ask.limit));
      state.mode = mode.value = "budget";
      modes();
    }
    const flops = sources[state.mode]();
    if (from !== "slider" && flops > 0) setSlider(Math.min(Math.max(flops, ask.flops[0]), ask.limit));
    show(flops);
    changed();
  };
  const modes = () => {
    rows.flops.hidden = state.mode !== "budget";
    rows.hours.hidden = state.mode !== "hours";
    rows.money.hidden = state.mode !== "money";
    rows.gpu.hidden = !["hours", "money"].includes(state.mode);
    rows.loss.hidden = state.mode !== "loss";
  };
  mode.addEventListener("change", () => { state.mode = mode.value; modes(); update("mode"); });
  slider.addEventListener("input", () => update("slider"));
  for (const field of [...Object.values(fields), device]) field.addEventListener("input", () => update("field"));
  const budget = () => format4(state.flops);
  const buttons = el("p", {}, copyButton("Copy as config", () => configText(study, state.flops)), " ", copyButton("Copy command", () => commandText(study, budget(), answerAt(ask, state.flops).reach)));
  output.append(buttons);
  fields.flops.value = budget();
  fields.loss.value = format4(ask.estimate.loss_opt.at(-1) ** 0.5 * interpolate(ask.flops, ask.estimate.loss_opt, ask.flops_max) ** 0.5);
  host.append(el("div", { class: "askgrid" },
    el("div", {}, row("I have", "ask-mode", mode), ...Object.values(rows), slider,
      el("p", { class: "note" }, `From ${power(Number(ask.flops[0].toPrecision(3)))} to ${power(Number(ask.limit.toPrecision(3)))} FLOPs: ${ask.limit_reason}. Dashed beyond ${power(ask.flops_max)}, the largest fitted budget.`)),
    output));
  modes();
  setSlider(state.flops);
  show(state.mode === "budget" ? state.flops : sources[state.mode]());
}

function refusal(ask, flops, mode) {
  if (mode === "loss" && flops == null) return `Refused: the law reaches losses from ${format4(ask.estimate.loss_opt[0])} down to ${format4(ask.estimate.loss_opt.at(-1))} within its reach.`;
  if (!(flops > 0)) return "Give a number above zero, such as 1e13.";
  if (flops > ask.limit) return `Refused: ${format4(flops)} FLOPs are ${format4(flops / ask.flops_max)} times the largest fitted budget (${format4(ask.flops_max)}), beyond ${format4(ask.limit)}: ${ask.limit_reason}.`;
  return `Refused: ${format4(flops)} FLOPs are far below the smallest trained budget; no run supports the law there.`;
}

function quoted(text) {
  return /^[\w./=:@%+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

function commandText(study, budget, reach) {
  const given = `${quoted(page.source)} ${budget}${study.arm == null ? "" : ` --arm ${quoted(study.arm)}`}`;
  return `sweep predict ${given}` + (study.experiment && reach > 1.1 ? `\nsweep validate ${given}` : "");
}

// A whole experiment of one run, the optimum at a budget. A table gives no more than its size.
function configText(study, flops) {
  const found = answerAt(study.ask, flops), run = runAt(study.ask, flops), base = study.experiment;
  const title = page.title.replace(/\s+/g, " "), budget = format4(flops);
  const name = `${base ? base.name : title}_at_${budget}`.replace(/[^A-Za-z0-9]+/g, "_").replace(/^_/, "");
  const optimum = `N ${format4(found.n_params_opt)}${interval4(found.interval.n_params_opt)}, loss ${format4(found.loss_opt)}${interval4(found.interval.loss_opt)}`;
  const lines = ["# @package _global_", `# The optimum at ${budget} FLOPs by ${title}: ${optimum}.`,
    `# Save as configs/experiment/${name}.yaml, then: sweep plan experiment=${name}`];
  if (!base) lines.push("# The table does not name text and model: set data, tokenizer and model to those of its runs.");
  lines.push(`name: ${name}`, `budgets: [${budget}]`, "seeds: [0]", "grid:");
  if (base) lines.push(`  d_model: [${run.d_model}]  # ${run.n_layers} layers, ${run.n_heads} heads, N ${format4(run.n_params)}`, base.grid + base.rest);
  else lines.push(`  n_params: [${Math.round(found.n_params_opt)}]`, "");
  return lines.join("\n");
}

// ---- laws and evidence -----------------------------------------------------------------------------
const figures = (host, ...specs) => {
  const grid = el("div", { class: "figures" });
  host.append(grid);
  for (const spec of specs) new Chart(grid, spec);
};

function groupLegend(host, title, group, layers) {
  const list = el("ul", { class: "legend" });
  const fill = () => list.replaceChildren(...layers().map((layer) => legendEntry(layer, group)));
  const fit = { spec: {}, group, draw: fill, light: () => {} };
  charts.push(fit);
  fill();
  host.append(el("div", { role: "group", "aria-label": title }, el("p", { class: "note" }, title), list));
}

function buildLaws(host) {
  const study = current(), laws = study.laws;
  if (study.budgets.length) figures(host, isoflopSpec(study));
  const refused = Object.entries(laws.refused);
  if (!laws.methods) {
    host.append(el("p", {}, "No method could be fitted:"), el("ul", { class: "reasons" }, ...refused.map(([name, reason]) => el("li", {}, `${name}: ${reason}`))));
    return;
  }
  const own = () => lawLayers(study, "n_params_opt").slice(0, laws.methods.length);
  groupLegend(host, "Laws in the four figures: press to show or hide", "laws", own);
  groupLegend(host, "Published laws to overlay, each in its authors' counting", "laws", () => lawLayers(study, "n_params_opt").slice(laws.methods.length));
  figures(host, ...Object.keys(QUANTITIES).map((quantity) => lawSpec(study, quantity)), ...(study.contours.length ? [contourSpec(study)] : []));
  if (refused.length) host.append(el("p", { class: "note" }, "Not fitted: " + refused.map(([name, reason]) => `${name} (${reason})`).join("; ")));
  host.append(exponentTable(laws));
}

function table(header, rows, words) {
  const cell = (tag, value, k, extra) => el(tag, { class: words.includes(k) ? "word" : null, ...extra }, value == null ? "–" : String(value));
  return el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ...header.map((name, k) => cell("th", name, k, { scope: "col" })))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((value, k) => cell("td", value, k)))))));
}

function exponentTable(laws) {
  const weight = (method, target) => (method.weights[target] == null ? "–" : `${Math.round(100 * method.weights[target])} %`);
  const slope = (method, name) => (method.exponents[name] ? format4(method.exponents[name].value) + interval4(method.exponents[name].interval) : "–");
  return table(["method", "a of N ∝ C^a", "b of D ∝ C^b", "weight in N", "weight in loss", "fit"],
    laws.methods.map((m) => [m.name === "answer" ? "answer, at the largest budget" : m.name, slope(m, "a"), slope(m, "b"), weight(m, "n_params"), weight(m, "loss"), m.doubted ? "lack of fit" : "–"]), [0, 5]);
}

function withoutLaw(study) {
  if (!study.leave_out || !state.without) return null;
  const [kind, name] = [state.without.slice(0, 1), state.without.slice(2)];
  if (kind === "b") {
    const law = study.leave_out.budgets.find((one) => String(one.flops_budget) === name);
    return law ? { name: power(law.flops_budget), law } : null;
  }
  const law = Object.hasOwn(study.leave_out.runs, name) ? study.leave_out.runs[name] : null;
  const row = study.runs.label.indexOf(name);
  return law ? { name: (study.runs.name && study.runs.name[row]) || name, law } : null;
}

function setWithout(value) {
  state.without = state.without === value ? null : value;
  for (const chart of charts) if (chart.group === "without") chart.draw();
  const text = withoutText(current());
  byId("without-text").textContent = text;
  byId("without-text").classList.toggle("hint", !withoutLaw(current()));
  if (byId("picked-text")) byId("picked-text").textContent = state.without ? ` ${text} ` : "";
  for (const chip of document.querySelectorAll("[data-without]")) chip.setAttribute("aria-pressed", String(chip.dataset.without === state.without));
  say(text);
  changed();
}

function withoutText(study) {
  const found = withoutLaw(study);
  if (!found) return "Press a budget, or pick a run anywhere and leave it out: the law is refitted without it.";
  if (found.law.refused) return `Without ${found.name} there is no law: ${found.law.refused}`;
  const change = (key) => percent(found.law[key][1] / study.leave_out.full[key][1] - 1);
  return `Without ${found.name}, at ${format4(study.leave_out.flops.at(-1))} FLOPs: N_opt ${change("n_params")}, loss ${change("loss")}.`;
}

function buildEvidence(host) {
  const study = current();
  host.append(el("h3", {}, "Validations"));
  if (!study.validations.length) host.append(el("p", { class: "note" }, "No prediction has been validated yet: sweep validate registers one, trains it and scores it."));
  else host.append(el("div", { class: "cards" }, ...study.validations.map(validationCard)));
  host.append(el("h3", {}, "Predicting what was left out"));
  if (!study.backtest) host.append(el("p", { class: "note" }, "This fit has no backtest."));
  else if (study.backtest.refused) host.append(el("p", { class: "note" }, `Not possible: ${study.backtest.refused}.`));
  else {
    const known = study.backtest.methods.some((method) => method.n_params_error.some((error) => error != null));
    figures(host, backtestSpec(study, "loss"), ...(known ? [backtestSpec(study, "n_params")] : []));
    if (!known) host.append(el("p", { class: "note" }, "No budget that was held out has a usable minimum, so that N cannot be compared."));
  }
  if (study.leave_out) {
    host.append(el("h3", {}, "Leave something out"));
    host.append(el("div", { class: "chips", role: "group", "aria-label": "leave out a budget" }, ...study.leave_out.budgets.map((one) => el("button", { type: "button",
      "data-without": `b:${one.flops_budget}`, "aria-pressed": String(state.without === `b:${one.flops_budget}`), onclick: () => setWithout(`b:${one.flops_budget}`) }, `${power(one.flops_budget)} FLOPs`))));
    host.append(el("p", { id: "without-text", role: "status", class: withoutLaw(study) ? null : "hint" }, withoutText(study)));
    figures(host, leaveOutSpec(study, "n_params_opt"), leaveOutSpec(study, "loss_opt"));
  }
  host.append(el("h3", {}, "Fit, methods and conventions"));
  figures(host, ...(study.residuals.length ? [residualSpec(study)] : []));
  if (study.agreement) host.append(...agreementTable(study));
  if (study.reconcile.length) {
    host.append(el("h3", {}, "Exponents under other counting conventions"),
      table(["method", "N", "irreducible loss", "C", "a", "b"], study.reconcile.map((r) => [r.method, r.n_params.replace("_", " "), r.offset, r.flops, r.refused ? "–" : format4(r.a), r.refused ? r.refused : format4(r.b)]), [0, 1, 2, 3]));
  } else host.append(el("p", { class: "note" }, "Other counting conventions: sweep fit --reconcile adds their exponents."));
  host.append(el("h3", {}, "Hyperparameter check"));
  if (study.hparams.length) figures(host, hparamSpec(study, "lr"), hparamSpec(study, "batch"));
  else host.append(el("p", { class: "note" }, "Not measured: sweep check-hparams trains the corners of the grid at half and twice the settings."));
}

function validationCard(one) {
  const p = one.prediction, inside = (flag) => el("b", { class: flag ? "in" : "out" }, flag ? "inside" : "outside");
  return el("div", { class: "card" }, el("div", {}, el("b", {}, `${format4(p.flops)} FLOPs, ${format4(p.reach)}× the largest budget`)),
    el("div", {}, `loss ${format4(one.loss)}, predicted ${format4(p.loss_opt)}${interval4(p.loss_interval)}: `, inside(one.loss_inside)),
    one.n_params_opt == null ? el("div", {}, "N_opt not bracketed by the sizes") : el("div", {}, `N_opt ${format4(one.n_params_opt)}, predicted ${format4(p.n_params_opt)}${interval4(p.n_params_opt_interval)}: `, inside(one.n_params_opt_inside)),
    el("div", { class: "note" }, `registered ${p.registered_at.slice(0, 19)}Z before training, sha256 ${one.sha256.slice(0, 16)}`));
}

function agreementTable(study) {
  const rows = study.agreement.rows.flatMap((row) => Object.entries(row.methods).map(([name, at]) => [`${row.reach}×`, name, format4(at.n_params_opt) + interval4(at.ci.n_params_opt), format4(at.loss_opt) + interval4(at.ci.loss_opt)]));
  const found = [el("h3", {}, "Agreement of the methods"), table(["budget over the largest", "method", "N_opt", "loss"], rows, [0, 1])];
  if (study.agreement.disagreements.length) found.push(el("details", {}, el("summary", {}, `${study.agreement.disagreements.length} disagreements beyond the intervals`), el("ul", { class: "reasons" }, ...study.agreement.disagreements.map((text) => el("li", {}, text)))));
  return found;
}

// ---- runs ------------------------------------------------------------------------------------------
const COLUMNS = [["name", "run"], ["status", "status"], ["flops_budget", "budget"], ["n_params", "N"], ["n_tokens", "D"], ["loss", "loss"], ["d_model", "d_model"], ["n_layers", "layers"],
  ["lr_peak", "lr"], ["batch_tokens", "batch"], ["seed", "seed"], ["wall_time_s", "seconds"], ["mfu", "MFU"], ["reason", "not fitted because"]];
const WORDS = ["name", "label", "status", "reason"];

function buildRuns(host) {
  const study = current(), runs = study.runs;
  const curved = study.curves.some((curve) => curve.flops.length > 1); // a single point collapses to one
  if (study.curves.length) figures(host, curveSpec(study, false), ...(curved ? [curveSpec(study, true)] : []));
  if (study.devices.length) figures(host, deviceSpec(study));
  const spent = Object.entries(study.ledger), total = spent.reduce((sum, [, seconds]) => sum + seconds, 0);
  if (total) host.append(el("h3", {}, "Where the time went"), table(["activity", "seconds", "share"], spent.sort((a, b) => b[1] - a[1]).map(([name, s]) => [name.replaceAll("_", " "), format4(s), `${Number(((100 * s) / total).toPrecision(3))} %`]), [0]));
  const columns = COLUMNS.map(([key, title]) => (key === "name" && !runs.name ? ["label", title] : [key, title])).filter(([key]) => runs[key] && runs[key].some((value) => value != null));
  const body = el("tbody", { id: "run-rows" });
  const filter = el("input", { type: "search", id: "run-filter", value: state.filter, placeholder: "name, reason, or loss<3.5 d_model=64", size: 34 });
  const heads = columns.map(([key, title]) => el("th", { scope: "col", class: WORDS.includes(key) ? "word" : null }, el("button", { type: "button", "data-key": key, onclick: () => { state.sort = [key, state.sort[0] === key ? -state.sort[1] : 1]; fill(); } }, title)));
  const total_ = el("span", { class: "note", role: "status" });
  const fill = () => {
    const rows = sortedRuns(runs, matching(runs, state.filter));
    heads.forEach((head, k) => head.setAttribute("aria-sort", columns[k][0] === state.sort[0] ? (state.sort[1] > 0 ? "ascending" : "descending") : "none"));
    body.replaceChildren(...rows.map((i) => el("tr", { "data-run": i, tabindex: "0", class: [runs.reason[i] ? "out" : "", i === state.run ? "lit" : ""].join(" ").trim() || null, onclick: () => pickRun(i),
      onkeydown: (event) => { if (event.key === "Enter") pickRun(i); } },
      ...columns.map(([key]) => el("td", { class: key === "reason" ? "long" : WORDS.includes(key) ? "word" : null }, typeof runs[key][i] === "number" ? format4(runs[key][i]) : runs[key][i] ?? "")))));
    total_.textContent = ` ${rows.length} of ${runs.label.length} runs`;
  };
  filter.addEventListener("input", () => { state.filter = filter.value; fill(); changed(); });
  host.append(el("h3", {}, "Table"), el("p", {}, el("label", { for: "run-filter" }, "Filter "), filter, total_, " ",
    el("button", { type: "button", onclick: () => saveCsv("runs", runTable(study, Object.keys(runs))) }, "CSV")),
    el("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "table of runs" }, el("table", {}, el("thead", {}, el("tr", {}, ...heads)), body)));
  fill();
}

// Words must occur in the row; terms such as loss<3.5 compare a column with a number.
function matching(runs, text) {
  const terms = text.trim().toLowerCase().split(/\s+/).filter(Boolean).map((term) => {
    const parts = /^(\w+)(<=|>=|<|>|=)(.+)$/.exec(term);
    return parts && runs[parts[1]] && Number.isFinite(Number(parts[3])) ? { key: parts[1], op: parts[2], value: Number(parts[3]) } : { word: term };
  });
  const compare = { "<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b, "=": (a, b) => a === b };
  const row = (i) => WORDS.map((key) => (runs[key] ? runs[key][i] : "")).join(" ").toLowerCase();
  return runs.label.map((_, i) => i).filter((i) => terms.every((t) => (t.word ? row(i).includes(t.word) : runs[t.key][i] != null && compare[t.op](runs[t.key][i], t.value))));
}

function sortedRuns(runs, rows) {
  const values = runs[state.sort[0]] || runs.label, sign = state.sort[1];
  return rows.sort((a, b) => {
    if (values[a] == null || values[b] == null) return (values[a] == null) - (values[b] == null);
    return sign * (typeof values[a] === "number" ? values[a] - values[b] : String(values[a]).localeCompare(String(values[b])));
  });
}

function pickRun(row) {
  state.run = row === state.run ? null : row;
  for (const chart of charts) chart.light(state.run);
  for (const line of document.querySelectorAll("#run-rows tr")) line.classList.toggle("lit", Number(line.dataset.run) === state.run);
  const panel = byId("picked"), study = current();
  panel.hidden = state.run == null;
  if (state.run != null) {
    const label = study.runs.label[state.run], refit = study.leave_out && Object.hasOwn(study.leave_out.runs, label);
    panel.replaceChildren(el("span", {}, runText(study, state.run).replaceAll("\n", "; ")), " ",
      ...(!refit ? [] : [ el("button", { type: "button", "data-without": `r:${label}`, "aria-pressed": String(state.without === `r:${label}`), onclick: () => setWithout(`r:${label}`) }, "Leave it out"), el("span", { id: "picked-text" })]), " ",
      el("button", { type: "button", onclick: () => pickRun(null) }, "Clear"));
    say(`picked ${runText(study, state.run).split("\n")[0]}`);
  }
  changed();
}

// ---- assembly --------------------------------------------------------------------------------------
const BUILDERS = { ask: buildAsk, laws: buildLaws, evidence: buildEvidence, runs: buildRuns };

function buildStudy() {
  charts.length = 0;
  for (const [id, build] of Object.entries(BUILDERS)) {
    const host = byId(id);
    host.replaceChildren(host.firstElementChild);
    build(host);
  }
  for (const part of document.querySelectorAll(".study")) part.hidden = Number(part.dataset.study) !== state.study;
  for (const host of document.querySelectorAll(".pair")) {
    host.replaceChildren();
    buildPair(host, page.comparisons[Number(host.dataset.pair)], host.dataset.pair);
  }
  const compared = page.studies.filter((study) => study.laws.methods);
  if (compared.length > 1) {
    byId("compare").hidden = false;
    const host = byId("overlay");
    host.replaceChildren(el("h3", {}, "The answers of all arms"));
    figures(host, ...Object.keys(QUANTITIES).map(compareSpec));
  }
  const row = state.run;
  state.run = null;
  if (row != null) pickRun(row);
}

function buildPair(host, pair, number) {
  figures(host, pairLossSpec(pair, number), multiplierSpec(pair, number));
  const { at, target } = pair.found, factor = (one) => (one ? format4(one.value) + interval4(one.interval) : null);
  const shown = [["FLOPs of B", (row) => power(row.flops) + (row.extrapolated ? "*" : "")], ["loss A", (row) => format4(row.loss_a)], ["loss B", (row) => format4(row.loss_b)],
    ["A/B FLOPs", (row) => factor(row.flops_factor)], ["A/B tokens", (row) => factor(row.tokens_factor)], ["A/B seconds", (row) => factor(row.seconds_factor)],
    ["P(B better)", (row) => probability(row.p_b_better)]];
  const columns = shown.filter(([, cell]) => cell(target) != null);
  host.append(table(columns.map(([name]) => name), [...at, target].map((row) => columns.map(([, cell]) => cell(row))), []));
}

function redraw() {
  for (const chart of charts) chart.draw();
}

function start() {
  readHash();
  state.asked = state.flops != null;
  if (page.studies.length > 1) {
    byId("arms").append(...page.studies.map((study, k) => el("button", { type: "button", "aria-pressed": String(k === state.study), onclick: () => {
      Object.assign(state, { study: k, run: null, without: null, asked: false });
      byId("picked").hidden = true;
      [...byId("arms").children].forEach((button, j) => button.setAttribute("aria-pressed", String(j === k)));
      buildStudy();
      changed();
    } }, study.arm ?? page.title)));
  }
  buildStudy();
  byId("copy-answer").addEventListener("click", (event) => copy(markdown(current()), event.currentTarget));
  for (const button of document.querySelectorAll(".copy-experiment")) button.addEventListener("click", () => copy(current().experiment.whole, button));
  byId("theme").addEventListener("click", () => { document.documentElement.dataset.theme = isDark() ? "light" : "dark"; redraw(); changed(); });
  byId("print").addEventListener("click", () => print());
  let theme, closed; // of the screen: paper is light, and shows what is folded
  addEventListener("beforeprint", () => {
    theme = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((part) => { part.open = true; });
    onPaper = true;
    redraw();
  });
  addEventListener("afterprint", () => {
    if (theme) document.documentElement.dataset.theme = theme; else delete document.documentElement.dataset.theme;
    closed.forEach((part) => { part.open = false; });
    onPaper = false;
    redraw();
  });
  byId("reload")?.addEventListener("click", () => location.reload());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  for (const link of document.querySelectorAll('a[href^="#"]')) {
    link.addEventListener("click", (event) => { // the hash holds the state
      event.preventDefault();
      const target = byId(link.hash.slice(1));
      target.tabIndex = -1;
      target.focus({ preventScroll: true });
      target.scrollIntoView();
    });
  }
  let width = innerWidth, timer = 0;
  addEventListener("resize", () => { clearTimeout(timer); timer = setTimeout(() => { if (innerWidth !== width) { width = innerWidth; redraw(); } }, 120); });
  document.documentElement.dataset.ready = "true";
}

start();
