"""Utilisation of known and unknown devices."""

import dataclasses

import pytest

from sweep.flops import peak_flops_per_second
from sweep.records import BOOKKEEPING_COLUMNS, Point, RunResult


def test_both_utilisations_are_columns_and_no_science():
    assert {"mfu", "mfu_causal"} <= {field.name for field in dataclasses.fields(Point)}
    assert {"mfu", "mfu_causal"} <= {field.name for field in dataclasses.fields(RunResult)}
    assert {"mfu", "mfu_causal"} <= BOOKKEEPING_COLUMNS


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 NVL", 836e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200 NVL", 836e12),
        ("NVIDIA GH200 480GB", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA RTX A1000", None),
        ("AMD EPYC 9554", None),
    ],
)
def test_a_name_is_matched_by_whole_words(name, peak):
    assert peak_flops_per_second(name) == peak
