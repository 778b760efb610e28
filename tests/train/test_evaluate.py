"""The clustered standard error against its definition and against simulation."""

import math

import numpy as np
import pytest

from sweep.train.evaluate import clustered_mean


def test_singletons_give_the_ordinary_standard_error():
    values = np.random.default_rng(0).normal(size=500)
    mean, stderr = clustered_mean(values, np.arange(500))
    assert mean == pytest.approx(values.mean())
    assert stderr == pytest.approx(values.std(ddof=1) / math.sqrt(500))


def test_equal_copies_count_once():
    values = np.random.default_rng(1).normal(size=50)
    _, once = clustered_mean(values, np.arange(50))
    _, copied = clustered_mean(np.repeat(values, 9), np.repeat(np.arange(50), 9))
    assert copied == pytest.approx(once)


def test_it_matches_the_spread_of_simulated_means():
    generator = np.random.default_rng(2)
    clusters = np.repeat(np.arange(80), 25)
    means, stderrs = [], []
    for _ in range(300):
        values = generator.normal(size=80)[clusters] + generator.normal(size=len(clusters))
        mean, stderr = clustered_mean(values, clusters)
        means.append(mean)
        stderrs.append(stderr)
    assert np.mean(stderrs) == pytest.approx(np.std(means), rel=0.1)


def test_one_cluster_has_no_standard_error():
    assert clustered_mean(np.ones(5), np.zeros(5, dtype=np.int64)) == (1.0, None)


def test_strata_leave_only_the_spread_within_them():
    generator = np.random.default_rng(3)
    clusters = np.repeat(np.arange(80), 25)
    strata = clusters // 20
    means, stderrs = [], []
    for _ in range(300):
        values = 5.0 * strata + generator.normal(size=80)[clusters] + generator.normal(size=len(clusters))
        mean, stderr = clustered_mean(values, clusters, strata)
        means.append(mean)
        stderrs.append(stderr)
    assert np.mean(stderrs) == pytest.approx(np.std(means), rel=0.1)
    assert clustered_mean(values, clusters)[1] > 4 * stderr


def test_one_stratum_equals_none_and_a_stratum_with_one_cluster_has_no_standard_error():
    values = np.random.default_rng(4).normal(size=60)
    clusters = np.repeat(np.arange(6), 10)
    assert clustered_mean(values, clusters, np.zeros(60, dtype=np.int64)) == clustered_mean(values, clusters)
    assert clustered_mean(values, clusters, (clusters == 5).astype(np.int64))[1] is None
