"""Validations as text: a line each for status and fit, and predicted against measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from sweep.report.numbers import format4, plain_table
from sweep.store.status import SweepStatus
from sweep.store.validations import Interval, Registration, Validation


def validation_lines(
    registrations: Sequence[Registration], validations: Sequence[Validation], status: SweepStatus
) -> Iterator[str]:
    """Yield a line for each registered prediction: its score, or the progress of its runs."""
    scored = {validation.registration.name: validation for validation in validations}
    finished = {run.run_key for run in status.runs if run.status in ("done", "diverged")}
    for registration in registrations:
        validation = scored.get(registration.name)
        if validation is not None:
            yield validation_line(validation)
            continue
        n_done = sum(run.run_key in finished for run in registration.runs)
        yield (
            f"{_heading(registration)}: registered {_time(registration)}, {n_done} of "
            f"{len(registration.runs)} runs finished; sweep validate continues it"
        )


def validation_line(validation: Validation) -> str:
    """Return the score of a validation in one line."""
    registration = validation.registration
    inside = "inside" if validation.loss_inside else "outside"
    optimum = ""
    if validation.n_params_opt is not None:
        optimum = (
            f"; N_opt {format4(validation.n_params_opt)}, predicted {format4(registration.n_params_opt)}"
        )
    return (
        f"{_heading(registration)}: loss {format4(validation.loss)}, {inside} the predicted "
        f"{format4(registration.loss_opt)} {_interval(registration.loss_interval)}{optimum}"
    )


def validation_text(validation: Validation) -> RenderableType:
    """Return predicted against measured loss and N_opt, with the time and hash of the registration."""
    registration = validation.registration
    table = plain_table("", "predicted", "measured", "error", "status")
    table.add_row(
        "loss",
        f"{format4(registration.loss_opt)} {_interval(registration.loss_interval)}",
        format4(validation.loss),
        f"{validation.loss_error:+.2%}",
        "inside" if validation.loss_inside else "outside",
    )
    n_opt, error = validation.n_params_opt, validation.n_params_opt_error
    predicted = f"{format4(registration.n_params_opt)} {_interval(registration.n_params_opt_interval)}"
    if n_opt is None or error is None:
        table.add_row("N_opt", predicted, _side(validation), "", "not bracketed")
    else:
        spread = validation.n_params_opt_interval
        measured = format4(n_opt) + ("" if spread is None else f" {_interval(spread)}")
        inside = "inside" if validation.n_params_opt_inside else "outside"
        table.add_row("N_opt", predicted, measured, f"{error:+.1%}", inside)
    return Group(
        Text(
            f"{_heading(registration)}, {format4(registration.reach)} times the largest fitted budget, "
            f"{registration.confidence:.0%} intervals"
        ),
        Text(f"registered {_time(registration)} before training, sha256 {validation.sha256[:16]}"),
        table,
    )


def _side(validation: Validation) -> str:
    """Return the bound on N_opt from the best size, if that is the smallest or the largest one."""
    best, sizes = validation.n_params, [size.n_params for size in validation.sizes]
    if len(sizes) < 2:
        return ""
    return f"< {format4(sizes[1])}" if best == sizes[0] else f"> {format4(sizes[-2])}"


def _heading(registration: Registration) -> str:
    arm = "" if registration.arm is None else f" of arm {registration.arm}"
    return f"validation at {format4(registration.flops)} FLOPs{arm}"


def _time(registration: Registration) -> str:
    return f"{registration.registered_at[:19]}Z"


def _interval(interval: Interval) -> str:
    return f"[{format4(interval[0])}, {format4(interval[1])}]"
