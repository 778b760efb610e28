"""What a terminal shows of plans, fits and predictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sweep.machine.packing import Throughput
from sweep.records import Plan
from sweep.report.hparam_summary import UNMEASURED, hparam_line
from sweep.report.numbers import duration, four
from sweep.report.tables import plain_table as _table
from sweep.report.text.fit_tables import agreement_parts, backtest_parts, reconcile_table

if TYPE_CHECKING:  # scipy and pandas: a plan needs neither
    from sweep.fit import Fit, Prediction

MAX_EXCLUDED = 12  # excluded points named on screen; fit.json lists all
SYMBOLS = (("a", "N_opt ∝ C^a"), ("b", "D_opt ∝ C^b"), ("E", "irreducible loss"))
N_PARAMS, N_TOKENS, RATIO, LOSS = "n_params_opt", "n_tokens_opt", "tokens_per_param_opt", "loss_opt"


def plan_text(
    plan: Plan,
    states: Mapping[str, str],
    n_workers: int,
    speed: float,
    hparams: Mapping[str, Any] | str = UNMEASURED,
) -> RenderableType:
    """The runs with what they cost; dropped cells, warnings and totals below.

    `speed` is that of all workers together, in units of one that has a device to itself.
    """
    table = _table(
        "run", "N", "D", "D/N", "C", "error", "steps", "lr", "batch", "epochs", "memory", "time", "state"
    )
    for run in plan.runs:
        config = run.config
        table.add_row(
            config.name,
            four(run.n_params),
            four(config.n_tokens),
            four(config.n_tokens / run.n_params),
            four(run.flops),
            f"{run.budget_error:+.2%}",
            str(config.n_steps),
            four(config.optimizer.lr_peak),
            str(config.batch_tokens),
            "?" if run.epochs is None else f"{run.epochs:.2g}",
            f"{run.memory_bytes / 1e9:.2g} GB",
            duration(run.time_s),
            states.get(run.run_key, "planned"),
        )
    notes = [f"dropped {cell.name}: {cell.reason}" for cell in plan.dropped]
    notes += [f"warning: {warning}" for warning in plan.warnings]
    notes += [hparam_line(hparams), *_shared_line(plan)]
    arm = [Text(f"arm {plan.experiment.arm}")] if plan.experiment.arm else []
    return Group(
        *arm, table, *(Text(note) for note in notes), Text(_plan_totals(plan, states, n_workers, speed))
    )


def _shared_line(plan: Plan) -> list[str]:
    """What training each trunk once saves."""
    shared, alone = sum(run.flops_shared for run in plan.runs), sum(run.flops for run in plan.runs)
    if not shared:
        return []
    n_branches = sum(run.flops_shared > 0 for run in plan.runs)
    return [
        f"{n_branches} runs branch from the trunks of others: {four(shared)} of {four(alone)} FLOPs saved "
        f"({shared / alone:.0%})"
    ]


def _plan_totals(plan: Plan, states: Mapping[str, str], n_workers: int, speed: float) -> str:
    todo = [run for run in plan.runs if states.get(run.run_key) != "cached"]
    seconds = sum(run.time_s for run in todo)
    cost = sum(run.cost for run in todo)
    price = f", cost {cost:.2f}" if cost else ""
    longest = max((run.time_s for run in todo), default=0.0)
    left = sum(run.flops - run.flops_shared for run in todo)
    return (
        f"{len(plan.runs)} runs, {len(plan.runs) - len(todo)} cached; to train: "
        f"{four(left)} FLOPs, about {duration(max(seconds / speed, longest))} "
        f"on {n_workers} worker{'s' if n_workers > 1 else ''}{price}"
    )


def packing_line(row: Throughput) -> str:
    """What some workers did together on one device."""
    workers = f"{row.n_workers} worker{'s' if row.n_workers > 1 else ''}{' with MPS' if row.mps else ''}"
    return f"N {four(row.n_params)}: {workers}, {four(row.steps_per_second)} steps a second together"


def fit_text(fitted: Fit) -> RenderableType:
    """Each method's exponents with intervals, or why it refuses, and what was left out."""
    document = fitted.to_json()
    parts: list[RenderableType] = [Text(f"{document['points']['n']} points fitted")]
    for applied in document["points"]["filters"]:
        value = applied["value"] if isinstance(applied["value"], str) else f"{applied['value']:g}"
        parts.append(Text(f"filter {applied['name']}={value} left {applied['n_dropped']} out"))
    parts += _excluded_lines(document["points"]["excluded"])
    if document["hyperparameters"] is not None:
        parts.append(Text(hparam_line(document["hyperparameters"])))
    for name, method in document["methods"].items():
        if "refused" in method:
            parts.append(Text(f"{name}: refused: {method['refused']}"))
            continue
        parts.append(
            Text(f"{name} ({document['conventions']['constraint']} FLOPs, {_level(method)} intervals)")
        )
        parts.append(_budget_table(method["budgets"])) if "budgets" in method else None
        for symbol, meaning in SYMBOLS:
            if symbol not in method:
                continue
            told = four(method[symbol]) + _interval(method["ci"].get(symbol)) + _doubt(method, symbol)
            parts.append(Text(f"  {symbol} = {told}  {meaning}"))
        if method.get("counting") == "non_embedding":
            parts.append(
                Text("  a and b are in parameters without embeddings; every N_opt told is in total ones")
            )
        if "assumes" in method:
            parts.append(Text(f"  assumes {method['assumes']}"))
        bias = method.get("bias")
        if bias is not None:
            taken = (
                "taken off" if bias["corrected"] else "not taken off: fit.isoflop_bias_corrected=true does"
            )
            parts.append(
                Text(f"  its own bias: N_opt {bias['n_params_opt']:+.2%}, a {bias['a']:+.4f} ({taken})")
            )
        parts += [Text(f"  warning: {warning}") for warning in method.get("warnings", ())]
    parts += agreement_parts(document["agreement"])
    parts += backtest_parts(document["backtest"])
    if document["reconcile"] is not None:
        parts.append(reconcile_table(document["reconcile"]))
    return Group(*parts)


def _excluded_lines(excluded: Sequence[Mapping[str, Any]]) -> list[RenderableType]:
    lines = [Text(f"excluded {point['run_key']}: {point['reason']}") for point in excluded[:MAX_EXCLUDED]]
    if len(excluded) > MAX_EXCLUDED:
        lines.append(Text(f"and {len(excluded) - MAX_EXCLUDED} more excluded, listed in fit.json"))
    return list(lines)


def _level(method: Mapping[str, Any]) -> str:
    return f"{method['confidence']:.0%}"


def _interval(pair: Sequence[float] | None) -> str:
    return "" if pair is None else f"  [{four(pair[0])}, {four(pair[1])}]"


def _doubt(method: Mapping[str, Any], key: str) -> str:
    return " ?" if key in method.get("unproved", ()) else ""


def _budget_table(budgets: Iterable[Mapping[str, Any]]) -> Table:
    table = _table("budget", "N_opt", "D_opt", "loss", "status")
    for budget in budgets:
        values = [budget.get(key) for key in (N_PARAMS, N_TOKENS, LOSS)]
        table.add_row(
            four(budget["flops"]),
            *("" if value is None else four(value) for value in values),
            budget["status"],
        )
    return table


def prediction_text(predictions: Sequence[Prediction]) -> RenderableType:
    """What each method says at each budget, and the run it would take; past the data the backtest first."""
    parts: list[RenderableType] = []
    extrapolates = [told for told in predictions if told.backtest and (told.beyond_data or 0) > 1]
    if extrapolates:
        parts += backtest_parts(extrapolates[0].backtest or {})
    for document in (prediction.to_json() for prediction in predictions):
        beyond = document["beyond_data"]
        reach = "" if beyond is None else f", {four(beyond)} times the largest fitted budget"
        table = _table("method", "N_opt", "D_opt", "D/N", "loss")
        refused = []
        for name, method in document["methods"].items():
            if "refused" in method:
                refused.append(Text(f"{name}: refused: {method['refused']}"))
                continue
            cells = (
                four(method[key]) + _interval(method["ci"].get(key)) + _doubt(method, key)
                if key in method
                else ""
                for key in (N_PARAMS, N_TOKENS, RATIO, LOSS)
            )
            table.add_row(name, *cells)
            refused += _extras(name, method)
        parts += [Text(f"C = {four(document['flops'])} FLOPs{reach}"), table, *refused]
        if document["shape"]:
            shape = ", ".join(f"{key} {_shown(value)}" for key, value in document["shape"].items())
            parts.append(Text(f"train: {shape}"))
    return Group(*parts)


def _extras(name: str, method: Mapping[str, Any]) -> list[Text]:
    """A published law's origin, what being off in N costs, a new run's interval, the lifetime optimum."""
    lines = [Text(f"{name}: {note}") for note in method.get("notes", ())]
    lines += [Text(f"{name}: warning: {warning}") for warning in method.get("warnings", ())]
    run = method["prediction_interval"].get("loss")
    if run is not None:
        lines.append(Text(f"{name}: one new run's loss lies in {_interval(run).strip()}"))
    off = method["loss_off_2x"]
    if off:
        half, double = four(off["half_n"]), four(off["double_n"])
        lines.append(Text(f"{name}: half of N costs {half} in loss, twice of N {double}"))
    life = method.get("lifetime")
    if life is not None:
        lines.append(
            Text(
                f"{name}: to serve {four(life['inference_tokens'])} tokens at equal loss, N = "
                f"{four(life['n_params'])} and D = {four(life['n_tokens'])} save {life['saved']:.1%} of "
                f"lifetime compute"
            )
        )
    return lines


def _shown(value: object) -> str:
    return four(value) if isinstance(value, (int, float)) else str(value)
