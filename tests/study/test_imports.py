"""Import of tables of another trainer's runs, and fits of them together with a sweep's own."""

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from sweep.config import ColumnsConfig, FitConfig
from sweep.errors import InputError
from sweep.records import Point
from sweep.store.files import json_bytes
from sweep.store.run_store import RunStore
from sweep.study.imports import EVALUATION, import_table
from sweep.study.laws import fit_arms

HASHES = dict(zip(EVALUATION, ("c" * 64, "d" * 64, "e" * 64), strict=True))


def runs(budgets: Sequence[float]) -> list[dict[str, float | str]]:
    """Return exact points of L = 1.5 + 400 / N^.35 + 600 / D^.3 at 7 sizes a budget."""
    found: list[dict[str, float | str]] = []
    for budget in budgets:
        for step in range(-3, 4):
            n = (budget / 120) ** 0.5 * 1.5**step
            d = budget / (6 * n)
            loss = 1.5 + 400 / n**0.35 + 600 / d**0.3
            found.append({"n_params": n, "n_tokens": d, "flops": budget, "loss": loss})
    return found


def write(path: Path, rows: Sequence[dict[str, float | str]]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def own(sweep_dir: Path, rows: Sequence[dict[str, float | str]], **labels: str | None) -> None:
    """Store points as the sweep's own results."""
    for number, row in enumerate(rows):
        key = f"{number:016x}"
        values: dict[str, float | str | None] = {**row, **HASHES, **labels}
        point = Point(run_key=key, name=f"own-{number}", train_loss=1.0, **values)  # type: ignore[arg-type]
        (sweep_dir / "runs" / key).mkdir(parents=True)
        record = {"point": {name: getattr(point, name) for name in Point.__dataclass_fields__}}
        (sweep_dir / "runs" / key / "result.json").write_bytes(json_bytes(record))


def test_a_directory_that_cannot_be_created_is_one_sentence(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("n_params,n_tokens,flops,loss\n1e5,1e6,6e11,3.5\n")
    with pytest.raises(InputError, match=r"^--into /proc/x cannot be created \(.*\): choose another$"):
        import_table(table, Path("/proc/x"))


def test_a_table_becomes_results_with_provenance(tmp_path: Path) -> None:
    table = write(tmp_path / "older.csv", runs([1e15, 1e16]))
    done = import_table(table, tmp_path / "store")
    assert (done.n_new, done.n_known) == (14, 0)
    stored = RunStore(tmp_path / "store").points()
    assert not stored.excluded
    assert {point.status for point in stored.points} == {"done"}
    assert sorted(point.loss for point in stored.points) == sorted(row["loss"] for row in runs([1e15, 1e16]))  # type: ignore[type-var]
    with done.tables[0].open() as stream:
        listed = list(csv.DictReader(stream))
    assert all(row["provenance"].startswith("older.csv#") for row in listed)
    results = [json.loads(path.read_text()) for path in (tmp_path / "store").glob("runs/*/result.json")]
    assert sorted(result["provenance"]["row"] for result in results) == list(range(1, 15))
    assert all(result["point"]["train_loss"] is None for result in results)


def test_a_table_can_be_imported_again_and_grow(tmp_path: Path) -> None:
    table = write(tmp_path / "older.csv", runs([1e15]))
    import_table(table, tmp_path / "store")
    before = {path: path.read_bytes() for path in (tmp_path / "store").glob("runs/*/result.json")}
    write(table, runs([1e15, 1e16]))
    done = import_table(table, tmp_path / "store")
    assert (done.n_new, done.n_known) == (7, 7)
    assert {path: path.read_bytes() for path in before} == before


def test_runs_evaluated_alike_are_fitted_together(tmp_path: Path) -> None:
    own(tmp_path / "store", runs([1e15, 1e16]))
    table = write(tmp_path / "older.csv", [{**row, **HASHES} for row in runs([1e17, 1e18])])
    import_table(table, tmp_path / "store")
    fitted = fit_arms(tmp_path / "store", FitConfig(n_bootstrap=0))[None]
    document = fitted.to_json()
    assert document["points"]["n"] == 28
    together = tmp_path / "all"
    own(together, runs([1e15, 1e16, 1e17, 1e18]))
    alone = fit_arms(together, FitConfig(n_bootstrap=0))[None].to_json()
    assert document["methods"] == alone["methods"]


def test_a_column_of_another_name(tmp_path: Path) -> None:
    rows = [{("val" if key == "loss" else key): value for key, value in row.items()} for row in runs([1e15])]
    table = write(tmp_path / "older.csv", rows)
    assert import_table(table, tmp_path / "store", columns=replace(ColumnsConfig(), loss="val")).n_new == 7


def test_scores_on_evaluation_sets_are_named_and_not_imported(tmp_path: Path) -> None:
    scores = {"loss_stderr": 0.01, "loss_code": 2.0, "bits_per_byte_code": 1.0}
    table = write(tmp_path / "older.csv", [{**row, **scores} for row in runs([1e15])])
    done = import_table(table, tmp_path / "store")
    assert done.left_out == ("loss_code", "bits_per_byte_code")
    assert not any(point.sets for point in RunStore(tmp_path / "store").points().points)


# --- errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", EVALUATION)
def test_another_evaluation_is_refused_and_nothing_is_written(tmp_path: Path, field: str) -> None:
    own(tmp_path / "store", runs([1e15]))
    table = write(tmp_path / "older.csv", [{**row, **HASHES, field: "f" * 64} for row in runs([1e17])])
    for assumed in (False, True):
        with pytest.raises(InputError, match=rf"row 1: {field} is ffffffffffffffff and the sweep's .* not"):
            import_table(table, tmp_path / "store", same_evaluation=assumed)
    assert len(RunStore(tmp_path / "store").points().points) == 7


def test_an_unknown_evaluation_needs_the_users_word(tmp_path: Path) -> None:
    own(tmp_path / "store", runs([1e15, 1e16]))
    table = write(tmp_path / "older.csv", runs([1e17]))
    with pytest.raises(InputError, match=r"has no corpus_sha256 in row 1, .* or give --same-evaluation if"):
        import_table(table, tmp_path / "store")
    import_table(table, tmp_path / "store", same_evaluation=True)
    fitted = fit_arms(tmp_path / "store", FitConfig(n_bootstrap=0))[None]
    assert fitted.to_json()["points"]["n"] == 21
    records = [json.loads(path.read_text()) for path in (tmp_path / "store").glob("runs/*/result.json")]
    assert [one["provenance"]["same_evaluation_assumed"] for one in records if "provenance" in one] == [
        True
    ] * 7


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"flops": ""}, r"row 1 cannot be imported: flops=None .* a point needs n_params, n_tokens, flops"),
        ({"n_tokens": ""}, r"row 1 cannot be imported: n_tokens=None"),
    ],
)
def test_a_point_without_a_needed_number(tmp_path: Path, change: dict[str, str], sentence: str) -> None:
    (name,) = change
    rows = [{key: value for key, value in row.items() if key != name} for row in runs([1e15])]
    with pytest.raises(InputError, match=sentence):
        import_table(write(tmp_path / "older.csv", rows), tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_imported_runs_alone_are_no_planned_sweep(tmp_path: Path) -> None:
    sweep_dir = tmp_path / "sweep"
    table = write(tmp_path / "older.csv", runs([1e15]))
    import_table(table, sweep_dir)
    store = RunStore(sweep_dir)
    for ask in (store.latest_experiment, store.cancel, store.status):
        with pytest.raises(InputError, match="holds imported runs alone, which only fit, predict, compare"):
            ask()
    with pytest.raises(InputError, match=r"nothere holds no sweep"):
        RunStore(tmp_path / "nothere").find_run("k")
    with pytest.raises(InputError, match=r"--into .* is a file: give a directory"):
        import_table(table, table)


def test_a_repeated_row_and_a_foreign_key(tmp_path: Path) -> None:
    rows = runs([1e15])
    with pytest.raises(InputError, match=r"older\.csv: row 8 repeats row 2: remove it"):
        import_table(write(tmp_path / "older.csv", [*rows, rows[1]]), tmp_path / "store")
    own(tmp_path / "store", rows)
    taken = [{**row, **HASHES, "run_key": f"{9 - i:016x}"} for i, row in enumerate(rows)]
    with pytest.raises(InputError, match=r"row 4 has the run_key 0000000000000006 of another point in"):
        import_table(write(tmp_path / "older.csv", taken), tmp_path / "store")


def test_a_sweep_with_arms_takes_rows_of_one_of_them_or_of_a_new_one(tmp_path: Path) -> None:
    own(tmp_path / "store", runs([1e15]), arm="base")
    table = write(tmp_path / "older.csv", [{**row, **HASHES} for row in runs([1e17])])
    with pytest.raises(InputError, match=r"has arms, .*: give --arm with one of base, or with a new name$"):
        import_table(table, tmp_path / "store")
    import_table(table, tmp_path / "store", arm="base")
    assert {point.arm for point in RunStore(tmp_path / "store").points().points} == {"base"}
    assert import_table(table, tmp_path / "store", arm="muon").n_new == 7
    fits = fit_arms(tmp_path / "store", FitConfig(n_bootstrap=0))
    assert {arm: fitted.n_points for arm, fitted in fits.items()} == {"base": 14, "muon": 7}


def test_the_column_arm_is_kept(tmp_path: Path) -> None:
    rows = [{**row, "arm": arm} for arm in ("adamw", "muon") for row in runs([1e15, 1e16])]
    table = write(tmp_path / "both.csv", rows)
    assert import_table(table, tmp_path / "store").n_new == 28
    fits = fit_arms(tmp_path / "store", FitConfig(n_bootstrap=0))
    assert {arm: fitted.n_points for arm, fitted in fits.items()} == {"adamw": 14, "muon": 14}
    one = write(tmp_path / "one.csv", rows[:14])
    assert import_table(one, tmp_path / "store", arm="adamw").n_known == 14


def test_an_arm_that_differs_from_the_column_and_rows_without_one(tmp_path: Path) -> None:
    rows = [{**row, "arm": "adamw"} for row in runs([1e15])]
    table = write(tmp_path / "one.csv", rows)
    with pytest.raises(InputError, match=r"--arm muon differs from the column arm of .* \(adamw\): leave"):
        import_table(table, tmp_path / "store", arm="muon")
    with pytest.raises(InputError, match=r"--arm is empty"):
        import_table(table, tmp_path / "store", arm=" ")
    holes = write(tmp_path / "holes.csv", [*rows[:3], {**rows[3], "arm": ""}])
    with pytest.raises(InputError, match=r"has no arm in row 4 \(line 5\), and arms in others"):
        import_table(holes, tmp_path / "store")
    import_table(write(tmp_path / "plain.csv", runs([1e15])), tmp_path / "store")
    with pytest.raises(InputError, match=r"has runs without an arm, and those of adamw would not be fitted"):
        import_table(table, tmp_path / "store")


def test_a_new_arm_may_have_another_evaluation_and_an_old_one_may_not(tmp_path: Path) -> None:
    own(tmp_path / "store", runs([1e15]), arm="base")
    other = HASHES | {"corpus_sha256": "f" * 64}
    rows = [{**row, **other, "arm": arm} for arm in ("new", "base") for row in runs([1e17])]
    with pytest.raises(InputError, match=r"row 8: corpus_sha256 is ffffffffffffffff and the sweep's"):
        import_table(write(tmp_path / "both.csv", rows), tmp_path / "store")
    assert import_table(write(tmp_path / "new.csv", rows[:7]), tmp_path / "store").n_new == 7


@pytest.mark.parametrize("name", ["..", ".", "a\nb", "\x1b[31mred", "x" * 201])
def test_a_name_that_no_directory_can_have_is_refused(tmp_path: Path, name: str) -> None:
    table = write(tmp_path / "t.csv", runs([1e15]))
    with pytest.raises(InputError, match=r"cannot be the name of an arm: use letters, digits and marks"):
        import_table(table, tmp_path / "store", arm=name)
    assert not (tmp_path / "store").exists()


def test_two_arms_do_not_share_a_directory(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", runs([1e15]))
    import_table(table, tmp_path / "store", arm="a/b")
    assert import_table(table, tmp_path / "store", arm="a/b").n_known == 7
    with pytest.raises(InputError, match=r"arms a/b and a_b would share the directory a_b: rename one"):
        import_table(table, tmp_path / "store", arm="a_b")


def test_an_imported_run_is_found_by_its_name(tmp_path: Path) -> None:
    import_table(write(tmp_path / "t.csv", runs([1e15])), tmp_path / "store")
    store = RunStore(tmp_path / "store")
    point = store.points().points[0]
    assert store.find_run(str(point.name)) == point.run_key
    with pytest.raises(InputError, match=r"'nobody' is not a run key or the name of a run: points.csv lists"):
        store.find_run("nobody")


def test_a_directory_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a directory: give a table, such as the points.csv of a sweep"):
        import_table(tmp_path, tmp_path / "store")
