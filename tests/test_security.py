"""Forbidden calls in the source, file permissions, and writes through symbolic links."""

from __future__ import annotations

import ast
import os
import stat
from pathlib import Path

import pytest

from sweep.store.attempts.attempts import read_attempts
from sweep.store.run_store import RunStore
from sweep.worker.__main__ import work
from tests.toy_trainer import toy_plan, toy_sweep

ROOT = Path(__file__).parents[1]
PICKLING = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
CALLS = {
    "torch.load", "torch.save", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load",
    "os.system", "os.popen", "pandas.read_pickle", "pd.read_pickle", "tempfile.mktemp",
}  # fmt: skip
SPAWNS = {"run", "Popen", "call", "check_call", "check_output"}


def offences(source: str) -> list[str]:
    """Return the forbidden imports and calls of a module, with line numbers."""
    found = [(node.lineno, name) for node in ast.walk(ast.parse(source)) for name in _of_node(node)]
    return [f"line {line}: {name}" for line, name in sorted(found)]


def _of_node(node: ast.AST):
    if isinstance(node, ast.Import):
        yield from (f"import {alias.name}" for alias in node.names if alias.name.split(".")[0] in PICKLING)
    elif isinstance(node, ast.ImportFrom):
        if (node.module or "").split(".")[0] in PICKLING:
            yield f"from {node.module} import"
        imported = {f"{node.module}.{alias.name}" for alias in node.names}
        yield from sorted(imported & CALLS)
    elif isinstance(node, ast.Constant) and node.value == "_target_":
        yield "_target_"
    elif isinstance(node, ast.Call):
        yield from _of_call(node)


def _of_call(node: ast.Call):
    name = ast.unparse(node.func)
    if name in BUILTINS | CALLS:
        yield name
    for keyword in node.keywords:
        if keyword.arg in ("shell", "allow_pickle") and ast.unparse(keyword.value) != "False":
            yield f"{keyword.arg}="
    module, _, function = name.rpartition(".")
    is_text = not node.args or isinstance(node.args[0], (ast.Constant, ast.JoinedStr, ast.BinOp))
    if module == "subprocess" and function in SPAWNS and is_text:
        yield f"{name} with a string"


def test_the_source_neither_unpickles_nor_evaluates_code_nor_uses_a_shell():
    sources = sorted((ROOT / "sweep").rglob("*.py"))
    assert len(sources) > 100
    found = {str(path.relative_to(ROOT)): offences(path.read_text()) for path in sources}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_the_check_finds_each_offence():
    examples = [
        "import pickle", "from pickle import loads", "torch.load('x')", "from torch import load",
        "import yaml\nyaml.load(x)", "eval('1')", "exec('1')", "compile('1', '', 'eval')", "os.system('ls')",
        "subprocess.run('ls', shell=True)", "subprocess.run('ls')", "subprocess.Popen(f'ls {x}')",
        "np.load(x, allow_pickle=True)", "config['_target_']", "pd.read_pickle(x)", "__import__('os')",
        "import joblib", "subprocess.run('ls ' + x)",
    ]  # fmt: skip
    assert [example for example in examples if not offences(example)] == []


def test_the_check_accepts_safe_code():
    for safe in ("model.eval()", "re.compile('x')", "subprocess.run(['ls', x])", "np.load(x)"):
        assert offences(safe) == []


def test_packaged_configs_name_no_python_object():
    for path in (ROOT / "configs").rglob("*.yaml"):
        text = path.read_text()
        assert "_target_" not in text
        assert "!!" not in text
        assert "${" not in text


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_sweep_is_private_to_its_owner(tmp_path):
    for umask in (0o022, 0o002, 0o077):
        before = os.umask(umask)
        try:
            store = toy_sweep(tmp_path / f"{umask:o}" / "sweep", 1)
        finally:
            os.umask(before)
        assert mode(store.sweep_dir) == 0o700
        assert mode(store.sweep_dir / "runs") == 0o777 & ~umask  # one chmod of the sweep grants access


def test_an_existing_directory_keeps_its_mode(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2770)
    RunStore(shared).add_plan(toy_plan(1))
    assert mode(shared) == 0o2770


def test_nothing_is_written_through_a_symbolic_link(tmp_path):
    """Links in an attempt's directory can fail the attempt, but cannot redirect its writes."""
    victim = tmp_path / "victim"
    victim.write_text("keep")
    store = toy_sweep(tmp_path / "sweep", 1, max_failures=1)

    def create_links(run, placement, session):
        attempt = session.checkpoint_dir.parent
        for name in ("error.txt", "end.json", "result.tmp", "metrics.jsonl", "heartbeat.json"):
            (attempt / name).unlink(missing_ok=True)
            (attempt / name).symlink_to(victim)
        with pytest.raises(OSError, match=r"metrics\.jsonl"):
            session.log({"step": 1})
        raise ValueError("enough")

    work(store.sweep_dir, train=create_links)
    assert victim.read_text() == "keep"
    [attempt] = read_attempts(next((store.sweep_dir / "runs").iterdir()))
    assert attempt.state == "failed:code"
    assert not any(
        path.is_symlink() for path in attempt.path.iterdir() if path.name in ("error.txt", "end.json")
    )
