"""Stored experiments of earlier versions: renamed and removed keys."""

from sweep.config import upgrade
from sweep.config.upgrade import upgrade_experiment


def test_removed_keys_go_and_renamed_ones_move(monkeypatch):
    monkeypatch.setattr(
        upgrade, "CHANGED_KEYS", {"law": None, "fit.robust": "fit.isoflop.robust", "a.b": "c"}
    )
    stored = {"name": "x", "law": None, "fit": {"robust": True, "seed": 0}}
    assert upgrade_experiment(stored) == {"name": "x", "fit": {"seed": 0, "isoflop": {"robust": True}}}
    assert stored["fit"] == {"robust": True, "seed": 0}


def test_a_current_experiment_stays_unchanged():
    current = {"name": "x", "fit": {"seed": 0}}
    assert upgrade_experiment(current) == current
