"""Memory estimate against the measured peak of runs, each in a fresh process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sweep.plan.estimate import memory
from tests.plan.memory_probe import probe_run
from tests.train.corpus import prepared_corpus

REPOSITORY = Path(__file__).parents[2]
SMALL = {"d_model": 128, "n_layers": 4, "d_ff": 512}
CASES = {
    "activations": {"batch_size": 64, "model": SMALL},
    "parts of two sizes": {"batch_size": 112, "micro_batch_size": 64, "model": SMALL},
    "logits": {"batch_size": 16, "model": SMALL | {"vocab_size": 8192}},
    "weights": {
        "batch_size": 2,
        "micro_batch_size": 1,
        "model": {"d_model": 512, "n_layers": 6, "d_ff": 2048},
    },
    "noise": {
        "batch_size": 16,
        "micro_batch_size": 1,
        "measure_noise_scale": True,
        "evaluation_tokens": 256,
        "model": {"d_model": 512, "n_layers": 6, "d_ff": 2048},
    },
    "noise in bf16": {
        "batch_size": 16,
        "micro_batch_size": 1,
        "measure_noise_scale": True,
        "evaluation_tokens": 256,
        "precision": "bf16",
        "model": {"d_model": 512, "n_layers": 6, "d_ff": 2048},
    },
    "noise and a large batch": {
        "batch_size": 8,
        "measure_noise_scale": True,
        "evaluation_tokens": 256,
        "model": {"d_model": 512, "n_layers": 6, "d_ff": 2048},
    },
    "noise and activations": {"batch_size": 64, "measure_noise_scale": True, "model": SMALL},
    "many heads": {"batch_size": 32, "model": SMALL | {"seq_len": 256, "n_heads": 8, "n_kv_heads": 8}},
    "long sequences": {"batch_size": 16, "model": SMALL | {"seq_len": 512}},
    "bf16": {"batch_size": 64, "precision": "bf16", "model": SMALL},
}


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is reset through proc")
@pytest.mark.parametrize("name", CASES)
def test_the_estimate_is_within_a_fifth_of_the_measured_peak(tmp_path, name):
    manifest = prepared_corpus(tmp_path).manifest
    command = [sys.executable, "-m", "tests.plan.memory_probe", str(tmp_path), json.dumps(CASES[name])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    measured = int(done.stdout)
    assert measured > 200e6
    case = CASES[name]
    estimated = memory(
        probe_run(manifest, case),
        case.get("micro_batch_size"),
        measures_noise=case.get("measure_noise_scale", False),
    ).rise
    assert estimated == pytest.approx(measured, rel=0.2)
