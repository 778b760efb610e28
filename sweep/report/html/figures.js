// The figures of one study: specs for Chart from the document's numbers.
"use strict";

const BLUE = "#0072B2", ORANGE = "#D55E00", GREY = "#868e96";
const QUANTITIES = {
  n_params_opt: { title: "Compute-optimal parameters", label: "N (parameters)", format: count },
  n_tokens_opt: { title: "Compute-optimal tokens", label: "D (tokens)", format: count },
  tokens_per_param_opt: { title: "Tokens per parameter at the optimum", label: "D / N", format: plain },
  loss_opt: { title: "Loss against compute", label: "held-out loss (nats per token)", format: plain },
};

const FLOPS_AXIS = { log: true, label: "training compute C (FLOPs)", format: power };
const methodColor = (method) => (!method.color || method.color === "#000000" ? GREY : method.color);

// Text of a run for tooltips and the panel of the picked run.
function runText(study, i) {
  const runs = study.runs, at = (name) => (runs[name] ? runs[name][i] : null), lines = [];
  lines.push(at("name") || runs.label[i]);
  if (at("loss") != null) lines.push(`loss ${format4(at("loss"))}`);
  const shape = [["d_model", "d_model"], ["n_layers", "layers"], ["n_heads", "heads"]].filter(([key]) => at(key) != null);
  if (shape.length) lines.push(shape.map(([key, word]) => `${word} ${at(key)}`).join(", "));
  const size = [["n_params", "N"], ["n_tokens", "D"], ["flops", "C"]].filter(([key]) => at(key) != null);
  lines.push(size.map(([key, word]) => `${word} ${format4(at(key))}`).join(", "));
  const rule = [["lr_peak", "lr"], ["batch_tokens", "batch"], ["n_steps", "steps"], ["seed", "seed"]].filter(([key]) => at(key) != null);
  if (rule.length) lines.push(rule.map(([key, word]) => `${word} ${format4(at(key))}`).join(", "));
  if (runs.reason[i]) lines.push(`not fitted: ${runs.reason[i]}`);
  return lines.join("\n");
}

function runDots(study, rows, more) {
  const runs = study.runs;
  return { type: "dots", x: rows.map((i) => runs.n_params[i]), y: rows.map((i) => (runs.loss ? runs.loss[i] : null)), runs: rows,
    text: (k) => runText(study, rows[k]), ...more };
}

function runTable(study, columns) {
  const runs = study.runs, names = columns.filter((name) => runs[name]);
  return [names, ...runs.label.map((_, i) => names.map((name) => runs[name][i]))];
}

const RUN_CSV = ["label", "name", "status", "reason", "flops_budget", "flops", "n_params", "n_tokens", "loss", "loss_stderr", "seed"];

// Budgets without a usable minimum, with the reason, in the words of a note.
function unusable(budgets) {
  const found = budgets.filter((budget) => budget.status !== "ok"), shown = found.slice(0, 3);
  const more = found.length > 3 ? [`and ${found.length - 3} more`] : [];
  return found.length ? [`dashed, without a usable minimum: ${[...shown.map((one) => `${power(one.flops_budget)} (${one.reason || one.status})`), ...more].join(", ")}`] : [];
}

function isoflopSpec(study) {
  const index = new Map(study.runs.label.map((label, i) => [label, i]));
  const budgets = study.budgets, spread = Math.log(budgets.at(-1).flops_budget / budgets[0].flops_budget) || 1;
  const color = (budget) => () => viridis(Math.log(budget.flops_budget / budgets[0].flops_budget) / spread);
  const layers = () => {
    const found = budgets.map((budget) => ({
      name: `${power(budget.flops_budget)} FLOPs`, color: color(budget), title: budget.reason,
      items: [
        { type: "line", x: budget.parabola.n_params, y: budget.parabola.loss, dash: budget.status === "ok" ? null : "5 4" },
        runDots(study, budget.labels.map((label) => index.get(label)).filter((i) => i != null), {}),
        runDots(study, budget.excluded.map((label) => index.get(label)).filter((i) => i != null && study.runs.loss[i] != null), { shape: "cross" }),
      ],
    }));
    const minima = budgets.filter((budget) => budget.n_params_opt != null);
    if (minima.length) {
      const ends = (k) => minima.map((b) => (b.n_params_interval ? b.n_params_interval[k] : null));
      found.push({ name: "minimum with interval", color: "currentColor", items: [
        { type: "line", x: minima.map((b) => b.n_params_opt), y: minima.map((b) => b.loss_opt), dash: "2 3", width: 1.2 },
        { type: "hbars", y: minima.map((b) => b.loss_opt), xlo: ends(0), xhi: ends(1) },
        { type: "dots", shape: "open", x: minima.map((b) => b.n_params_opt), y: minima.map((b) => b.loss_opt),
          text: (k) => `minimum at ${power(minima[k].flops_budget)} FLOPs\nN ${format4(minima[k].n_params_opt)}${interval4(minima[k].n_params_interval)}\nD ${format4(minima[k].n_tokens_opt)}\nloss ${format4(minima[k].loss_opt)}` },
      ] });
    }
    const lost = study.runs.label.map((_, i) => i).filter((i) => study.runs.status[i] === "diverged" && study.runs.n_params);
    if (lost.length) found.push({ name: "diverged", color: ORANGE, items: [runDots(study, lost, { shape: "triangle", top: true })] });
    if (budgets.some((b) => b.excluded.length)) found.push({ name: "× not fitted (reason on hover)", color: GREY, items: [{ type: "dots", shape: "cross", x: [], y: [] }] });
    return found;
  };
  return { id: "isoflop", title: "IsoFLOP curves: loss against size at equal compute", wide: true, height: 430, layers,
    note: [study.caption, ...unusable(budgets)].join("; "),
    x: { log: true, label: "N (parameters)", format: count }, y: { label: "held-out loss (nats per token)" },
    csv: () => runTable(study, RUN_CSV) };
}

// Published laws, dashed; colours of Tol 2021 (muted), lighter on dark.
const OVERLAYS = [["#332288", "#9d8ff2"], ["#117733", "#5fc98a"], ["#882255", "#e07aa8"], ["#999933", "#c9c95c"], ["#CC6677", "#e59aa6"],
  ["#44AA99", "#6fd0c0"], ["#AA4499", "#d585c8"], ["#88CCEE", "#88CCEE"], ["#DDCC77", "#DDCC77"]];
const overlayColor = (k) => () => OVERLAYS[k % OVERLAYS.length][isDark() ? 1 : 0];

function lawLayers(study, quantity) {
  const laws = study.laws, layers = [];
  for (const method of laws.methods) {
    const isAnswer = method.name === "answer", band = method.band[quantity];
    const slope = quantity === "n_params_opt" ? method.exponents.a : quantity === "n_tokens_opt" ? method.exponents.b : null;
    const doubt = method.doubted ? " (lack of fit)" : "";
    layers.push({ name: method.name + doubt, off: !isAnswer && laws.methods.some((m) => m.name === "answer") && method.name !== "isoflop",
      color: isAnswer ? "currentColor" : methodColor(method), title: method.warnings.join("\n") || null,
      items: [
        ...(band ? [{ type: "band", x: laws.flops, lo: band[0], hi: band[1], opacity: isAnswer ? 0.16 : 0.12 }] : []),
        { type: "line", x: laws.flops, y: method.estimate[quantity], width: isAnswer ? 2.6 : 1.7, dash: method.doubted ? "7 4" : null },
        { type: "dots", ghost: true, x: laws.flops.filter((_, k) => k % 6 === 0), y: method.estimate[quantity].filter((_, k) => k % 6 === 0),
          text: (k) => `${method.name}${doubt}\nC ${format4(laws.flops[6 * k])}\n${QUANTITIES[quantity].label} ${format4(method.estimate[quantity][6 * k])}${band ? interval4([band[0][6 * k], band[1][6 * k]]) : ""}${slope ? `\nslope ${format4(slope.value)}${interval4(slope.interval)} over the fitted range` : ""}` },
      ] });
  }
  laws.published.forEach((law, k) => {
    layers.push({ name: law.name, off: true, color: overlayColor(k), title: `${law.source}; counts ${law.convention}`,
      items: [{ type: "line", x: laws.flops, y: law.estimate[quantity], dash: "3 3", outside: quantity === "loss_opt" }] });
  });
  return layers;
}

function minimaLayer(study, quantity) {
  const minima = study.budgets.filter((budget) => budget.n_params_opt != null);
  const value = { n_params_opt: (b) => b.n_params_opt, n_tokens_opt: (b) => b.n_tokens_opt, tokens_per_param_opt: (b) => b.n_tokens_opt / b.n_params_opt, loss_opt: (b) => b.loss_opt }[quantity];
  const ends = (k) => minima.map((b) => (quantity === "n_params_opt" && b.n_params_interval ? b.n_params_interval[k] : null));
  return { name: "minima of the IsoFLOP curves", color: "currentColor", items: [
    { type: "bars", x: minima.map((b) => b.flops), lo: ends(0), hi: ends(1) },
    { type: "dots", shape: "open", x: minima.map((b) => b.flops), y: minima.map(value), text: (k) => `minimum at ${power(minima[k].flops_budget)} FLOPs\n${format4(value(minima[k]))}` }] };
}

function measuredLayer(study, quantity) {
  const found = study.validations.filter((one) => quantity === "loss_opt" || (quantity === "n_params_opt" && one.n_params_opt != null));
  if (!found.length) return [];
  const value = (one) => (quantity === "loss_opt" ? one.loss : one.n_params_opt);
  return [{ name: "validation, measured", color: ORANGE, items: [{ type: "dots", shape: "diamond", x: found.map((one) => one.prediction.flops), y: found.map(value),
    text: (k) => `validation at ${format4(found[k].prediction.flops)} FLOPs\nmeasured ${format4(value(found[k]))}` }] }];
}

function lawSpec(study, quantity) {
  const { title, label, format } = QUANTITIES[quantity], laws = study.laws;
  const layers = () => {
    const found = [...lawLayers(study, quantity)];
    if (quantity === "loss_opt" && study.runs.flops && study.runs.loss) {
      const rows = study.runs.label.map((_, i) => i).filter((i) => study.runs.loss[i] != null && !study.runs.reason[i]);
      found.unshift({ name: "runs", color: GREY, items: [runDots(study, rows, { x: rows.map((i) => study.runs.flops[i]), size: 2.5 })] });
    }
    if (study.budgets.length) found.push(minimaLayer(study, quantity));
    return [...found, ...measuredLayer(study, quantity)];
  };
  return { id: quantity, title, group: "laws", legend: false, layers, beyond: laws.flops_range[1], marker: () => (state.asked ? state.flops : null),
    x: FLOPS_AXIS, y: { log: true, label, format },
    csv: () => [["law", "flops", quantity, "low", "high"], ...[...laws.methods, ...laws.published].flatMap((law) =>
      laws.flops.map((c, k) => [law.name, c, law.estimate[quantity][k], ...(law.band && law.band[quantity] ? [law.band[quantity][0][k], law.band[quantity][1][k]] : [null, null])]))] };
}

function contourSpec(study) {
  const surface = study.contours[0], levels = surface.levels.filter((level) => level.flops.length > 1);
  const [bottom, top] = surface.n_params_range.map(Math.log), [left, right] = surface.flops_range;
  // Labels stand near the upper edge, where no run is, on the part of a contour inside of the figure.
  const labelled = (level) => {
    const inside = level.n_params.map((_, k) => k).filter((k) => level.flops[k] > left * 1.15 && level.flops[k] < right / 1.15);
    const far = (k) => Math.abs(Math.log(level.n_params[k]) - (bottom + 0.92 * (top - bottom)));
    return inside.length ? inside.reduce((best, k) => (far(k) < far(best) ? k : best)) : null;
  };
  // Labels nearer to the one before than a tenth of the width are left out.
  const texts = new Map();
  for (const level of levels) {
    const at = labelled(level), taken = [...texts].map(([other, k]) => other.flops[k]);
    if (at != null && taken.every((c) => Math.abs(Math.log(c / level.flops[at])) > 0.1 * Math.log(right / left))) texts.set(level, at);
  }
  const layers = () => {
    const found = levels.map((level, k) => ({ name: format4(level.loss), legend: false, color: () => viridis(k / Math.max(1, levels.length - 1)), items: [
      { type: "line", x: level.flops, y: level.n_params, width: 1.3, outside: true },
      ...[texts.get(level)].filter((at) => at != null).map((at) => ({ type: "label", x: [level.flops[at]], y: [level.n_params[at]], text: format4(level.loss), outside: true }))] }));
    const rows = study.runs.label.map((_, i) => i).filter((i) => !study.runs.reason[i] && study.runs.flops && study.runs.flops[i] != null);
    found.push({ name: "efficient frontier", color: ORANGE, items: [{ type: "line", x: surface.frontier.flops, y: surface.frontier.n_params, width: 2.4 }] });
    found.push({ name: "run", color: GREY, items: [runDots(study, rows, { x: rows.map((i) => study.runs.flops[i]), y: rows.map((i) => study.runs.n_params[i]), size: 3 })] });
    return found;
  };
  return { id: "isoloss", title: `Contours of equal loss and the efficient frontier (${surface.method})`, layers, beyond: surface.flops_max,
    note: surface.doubted ? "The points show lack of fit of this surface: read the contours as a sketch." : "Labels are losses in nats per token.",
    x: { ...FLOPS_AXIS, min: surface.flops_range[0], max: surface.flops_range[1] }, y: { log: true, label: "N (parameters)", format: count, min: surface.n_params_range[0], max: surface.n_params_range[1] },
    csv: () => [["loss", "flops", "n_params"], ...levels.flatMap((level) => level.flops.map((c, k) => [level.loss, c, level.n_params[k]]))] };
}

function backtestSpec(study, key) {
  const tested = study.backtest, errors = key === "loss" ? "loss_error" : "n_params_error";
  const layers = () => [
    ...(tested.fan ? [{ name: "interval of the answer", color: "currentColor", items: [{ type: "band", x: tested.fan.factor, lo: tested.fan[key][0], hi: tested.fan[key][1], opacity: 0.12 }] }] : []),
    ...tested.methods.map((method) => ({ name: method.name, color: method.name === "answer" ? "currentColor" : methodColor(method), items: [{ type: "dots", shape: method.name === "answer" ? "open" : "dot", x: method.factor, y: method[errors],
      text: (k) => `${method.name}\n${format4(method.factor[k])} times the largest budget fitted\nerror ${percent(method[errors][k])}` }] })),
    { name: "zero", legend: false, color: GREY, items: [{ type: "hline", y: [0] }] },
  ];
  return { id: `backtest-${key}`, group: "backtest", title: key === "loss" ? "Rolling backtest: optimal loss" : "Rolling backtest: optimal N", layers,
    note: key === "loss" ? "Each mark is a prediction of a budget from smaller ones alone; answer: the mean of the methods by today's weights." : null,
    x: { log: true, label: "reach: budget over the largest fitted", format: plain, min: 1 }, y: { label: "predicted / true − 1", format: percent },
    csv: () => [["method", "reach", "error"], ...tested.methods.flatMap((m) => m.factor.map((f, k) => [m.name, f, m[errors][k]]))] };
}

function residualSpec(study) {
  const found = study.residuals;
  return { id: "residuals", title: "Residuals of ln loss", x: FLOPS_AXIS, y: { label: "ln L − ln predicted", format: percent },
    note: "The sd in the legend is over all fitted runs; a trend or an arch is lack of fit.",
    layers: () => [...found.map((one, k) => ({ name: `${one.name} (sd ${percent(one.sd).replace("+", "")})`, off: k > 1, color: methodColor(one), items: [{ type: "dots", x: one.flops, y: one.residual, runs: one.run, size: 3,
      text: (i) => `${one.name}: residual ${percent(one.residual[i])}\n${runText(study, one.run[i])}` }] })),
      { name: "zero", legend: false, color: GREY, items: [{ type: "hline", y: [0] }] }],
    csv: () => [["method", "run", "flops", "residual"], ...found.flatMap((one) => one.run.map((i, k) => [one.name, study.runs.label[i], one.flops[k], one.residual[k]]))] };
}

function hparamSpec(study, axis) {
  const found = study.hparams.filter((one) => one.axis === axis), budgets = found.map((one) => one.flops_budget);
  const low = Math.min(...budgets), spread = Math.log(Math.max(...budgets) / low) || 1, word = axis === "lr" ? "learning rate" : "tokens per step";
  const shifted = (one, j) => one.factor.map((factor) => factor * 1.02 ** (j - (found.length - 1) / 2));
  return { id: `hparams-${axis}`, group: "hparams", title: `Hyperparameter check: ${word}`, x: { log: true, label: `${word} over the rule's`, format: plain }, y: { label: "loss − loss of the rule (nats)", format: plain },
    note: "Dashed: the larger size of a budget. Marks are shifted sideways, so that their errors stand next to each other.",
    layers: () => found.map((one, j) => ({ name: one.corner, color: () => viridis(Math.log(one.flops_budget / low) / spread), items: [
      { type: "line", x: one.parabola_factor, y: one.parabola, dash: one.is_small ? null : "5 4" },
      { type: "bars", x: shifted(one, j), lo: one.difference.map((d, k) => d - one.stderr[k]), hi: one.difference.map((d, k) => d + one.stderr[k]) },
      { type: "dots", x: shifted(one, j), y: one.difference, shape: one.is_small ? "dot" : "diamond", text: (k) => `${one.corner}\n×${format4(one.factor[k])}: ${format4(one.difference[k])} nats` }] })),
    csv: () => [["corner", "factor", "difference", "stderr"], ...found.flatMap((one) => one.factor.map((f, k) => [one.corner, f, one.difference[k], one.stderr[k]]))] };
}

function budgetColor(study, i) {
  const budgets = (study.runs.flops_budget || study.runs.flops || []).filter((b) => b != null);
  const low = Math.min(...budgets), spread = Math.log(Math.max(...budgets) / low) || 1;
  const own = (study.runs.flops_budget || study.runs.flops)[i];
  return () => viridis(Math.log(own / low) / spread);
}

function curveSpec(study, collapsed) {
  const floor = study.irreducible_loss, final = (curve) => curve.loss.at(-1) - floor;
  const shape = (curve) => (collapsed
    ? { x: curve.flops.map((c) => c / curve.flops.at(-1)), y: curve.loss.map((l) => (l - floor) / final(curve)) }
    : { x: curve.flops, y: curve.loss });
  const shown = study.curves.filter((curve) => final(curve) > 0), held = study.runs;
  const drawn = shown.map((curve) => ({ curve, at: shape(curve), color: budgetColor(study, curve.run) }));
  const groups = new Map();
  for (const one of drawn) {
    const budget = held.flops_budget ? held.flops_budget[one.curve.run] : null, name = budget ? `${power(budget)} FLOPs` : "runs";
    groups.set(name, [...(groups.get(name) || []), one]);
  }
  return { id: collapsed ? "collapsed" : "training", group: "training", title: collapsed ? "Collapsed: reducible loss over the fraction of compute" : "Loss during training",
    note: collapsed ? `(training loss − E) over its last value, E = ${format4(floor)} nats per token${floor ? " of parametric" : " (not identified by these points)"}: runs under one rule fall on one curve.` : "Lines are training losses; dots are held-out losses at the end.",
    x: collapsed ? { label: "fraction of the run's compute", format: plain, log: true } : FLOPS_AXIS, y: { log: true, label: collapsed ? "reducible loss over its last" : "loss (nats per token)", format: plain },
    layers: () => [...groups].map(([name, members]) => ({ name, color: members[0].color, items: [
      ...members.map((one) => ({ type: "line", x: one.at.x, y: one.at.y, width: 1, opacity: 0.75, run: one.curve.run })),
      ...(collapsed ? [] : [runDots(study, members.map((one) => one.curve.run).filter((i) => held.loss && held.loss[i] != null), {})].map((dots) => ({ ...dots, x: dots.runs.map((i) => held.flops[i]), size: 3 })))] })),
    csv: () => [["run", "flops", "train_loss"], ...study.curves.flatMap((c) => c.flops.map((f, k) => [held.label[c.run], f, c.loss[k]]))] };
}

function deviceSpec(study) {
  const colors = [BLUE, ORANGE, "#009E73", "#CC79A7"];
  return { id: "utilisation", title: "Throughput of the runs", x: { log: true, label: "N (parameters)", format: count }, y: { log: true, label: "training FLOP/s", format: power },
    layers: () => study.devices.map((one, k) => ({ name: one.device + (one.utilisation ? `: ${Number((100 * one.utilisation).toPrecision(3))} % of peak` : ""), color: colors[k % colors.length],
      items: [{ type: "dots", x: one.n_params, y: one.flops_per_second, text: (i) => `${one.device}\nN ${format4(one.n_params[i])}\n${format4(one.flops_per_second[i])} FLOP/s` },
        ...(one.peak ? [{ type: "line", x: [Math.min(...one.n_params), Math.max(...one.n_params)], y: [one.peak, one.peak], dash: "5 4" }] : [])] })),
    csv: () => [["device", "n_params", "flops_per_second"], ...study.devices.flatMap((d) => d.n_params.map((n, k) => [d.device, n, d.flops_per_second[k]]))] };
}

// The law refitted without a run or a budget, next to the law of all points.
function leaveOutSpec(study, quantity) {
  const refits = study.leave_out, key = quantity === "loss_opt" ? "loss" : "n_params", { title, label, format } = QUANTITIES[quantity];
  const line = (law) => {
    const [first, last] = law[key].map(Math.log), span = Math.log(refits.flops.at(-1) / refits.flops[0]);
    return refits.flops.map((c) => Math.exp(first + ((last - first) * Math.log(c / refits.flops[0])) / span));
  };
  return { id: `without-${key}`, group: "without", title: `${title}, ${refits.method}`, x: FLOPS_AXIS, y: { log: true, label, format }, beyond: study.laws.flops_range[1],
    layers: () => {
      const without = withoutLaw(study);
      return [{ name: "all runs", color: "currentColor", items: [{ type: "line", x: refits.flops, y: line(refits.full), width: 2.4 }] },
        ...(without && !without.law.refused ? [{ name: `without ${without.name}`, color: ORANGE, items: [{ type: "line", x: refits.flops, y: line(without.law), width: 2.4, dash: "6 4" }] }] : []),
        minimaLayer(study, quantity)];
    },
    csv: () => [["left out", "flops", quantity], ...[["none", refits.full], ...refits.budgets.map((b) => [b.flops_budget, b]), ...Object.entries(refits.runs)]
      .filter(([, law]) => !law.refused).flatMap(([name, law]) => line(law).map((v, k) => [name, refits.flops[k], v]))] };
}

function compareSpec(quantity) {
  const { title, label, format } = QUANTITIES[quantity], colors = [BLUE, ORANGE, "#009E73", "#CC79A7", "#56B4E9", "#E69F00"];
  const arms = page.studies.filter((study) => study.laws.methods);
  return { id: `compare-${quantity}`, group: "compare", title, x: FLOPS_AXIS, y: { log: true, label, format },
    layers: () => arms.map((study, k) => {
      const law = study.laws.methods[0], band = law.band[quantity];
      return { name: study.arm, color: colors[k % colors.length], items: [
        ...(band ? [{ type: "band", x: study.laws.flops, lo: band[0], hi: band[1] }] : []),
        { type: "line", x: study.laws.flops, y: law.estimate[quantity], width: 2.2 },
        ...minimaLayer(study, quantity).items.filter((item) => item.type === "dots").map((item) => ({ ...item, color: colors[k % colors.length] }))] };
    }),
    csv: () => [["arm", "flops", quantity], ...arms.flatMap((study) => study.laws.flops.map((c, k) => [study.arm, c, study.laws.methods[0].estimate[quantity][k]]))] };
}

// Two arms compared: numbers of sweep compare. Colours and marks are those of its figure.
const FACTOR_LIMIT = 30;
const commonBudget = (found) => Math.min(Math.max(...found.a.budgets), Math.max(...found.b.budgets));

function pairLossSpec(pair, number) {
  const { curves, unit } = pair.found;
  const side = (letter, name, color, shape, loss, band, minima) => ({ name: `${letter}: ${name}`, color, items: [
    { type: "band", x: curves.flops, lo: band[0], hi: band[1] },
    { type: "line", x: curves.flops, y: loss, width: 2.2 },
    { type: "dots", shape, x: minima[0], y: minima[1], text: (k) => `${letter}: ${name}\nminimum at ${power(minima[0][k])} FLOPs\nloss ${format4(minima[1][k])}` }] });
  return { id: `pair-${number}-loss`, title: "Loss at the optimum over compute", x: FLOPS_AXIS, y: { log: true, label: `loss (${unit})`, format: plain },
    beyond: commonBudget(pair.found),
    layers: () => [side("A", pair.a, BLUE, "dot", curves.loss_a, curves.loss_a_band, curves.minima_a), side("B", pair.b, ORANGE, "diamond", curves.loss_b, curves.loss_b_band, curves.minima_b)],
    csv: () => pairTable(pair) };
}

function multiplierSpec(pair, number) {
  const { curves, crossing, confidence } = pair.found, kept = (value) => (value == null ? null : Math.min(FACTOR_LIMIT, Math.max(1 / FACTOR_LIMIT, value)));
  const [low, high] = curves.multiplier_band, some = curves.flops.map((_, k) => k).filter((k) => k % 4 === 0);
  return { id: `pair-${number}-multiplier`, title: "Compute multiplier of B over A", x: FLOPS_AXIS, y: { log: true, label: "FLOPs of A over B, equal loss", format: plain },
    beyond: commonBudget(pair.found), beyondAtTop: true, marker: () => crossing.flops,
    note: `Above 1, A needs more compute than B.${crossing.flops == null ? "" : ` Dotted: the crossing, ${format4(crossing.flops)} FLOPs.`}`,
    layers: () => [
      { name: "1: equally good", color: GREY, items: [{ type: "hline", y: [1], dash: "6 4" }] },
      { name: `joint fit, ${Math.round(100 * confidence)} %`, color: ORANGE, items: [
        { type: "band", x: curves.flops, lo: low.map(kept), hi: high.map(kept) }, { type: "line", x: curves.flops, y: curves.multiplier.map(kept), width: 2.2 },
        { type: "dots", ghost: true, x: some.map((k) => curves.flops[k]), y: some.map((k) => kept(curves.multiplier[k])),
          text: (i) => `C ${format4(curves.flops[some[i]])}\nmultiplier ${format4(curves.multiplier[some[i]])}${interval4([low[some[i]], high[some[i]]])}` }] },
      { name: "at the budgets of B", color: "currentColor", items: [{ type: "dots", shape: "diamond", x: curves.minima_b[0], y: curves.multiplier_at_minima.map(kept),
        text: (k) => `at ${power(curves.minima_b[0][k])} FLOPs\nmultiplier ${format4(curves.multiplier_at_minima[k])}` }] }],
    csv: () => pairTable(pair) };
}

function pairTable(pair) {
  const { curves } = pair.found, bands = [curves.loss_a_band, curves.loss_b_band, curves.multiplier_band];
  return [["a", "b", "flops", "loss_a", "loss_a_low", "loss_a_high", "loss_b", "loss_b_low", "loss_b_high", "multiplier", "multiplier_low", "multiplier_high"],
    ...curves.flops.map((c, k) => [pair.a, pair.b, c, ...[curves.loss_a, curves.loss_b, curves.multiplier].flatMap((line, j) => [line[k], bands[j][0][k], bands[j][1][k]])])];
}
