"""Jobs in forks: results in order, errors as they are, several processes where asked for."""

import os

import pytest

from sweep.errors import InputError
from sweep.forks import run_forked


@pytest.mark.parametrize("n_processes", [1, 2, 8])
def test_results_come_in_the_order_of_the_jobs(n_processes):
    assert run_forked([lambda i=i: i * i for i in range(5)], n_processes) == [0, 1, 4, 9, 16]


def test_jobs_run_beside_this_process_only_where_asked_for():
    assert set(run_forked([os.getpid] * 3, 1)) == {os.getpid()}
    assert os.getpid() not in run_forked([os.getpid] * 3, 2)
    assert run_forked([os.getpid], 2) == [os.getpid()]
    assert run_forked([], 2) == []


def test_an_error_is_the_same_as_without_forks():
    def refuse():
        raise InputError("no such thing")

    for n_processes in (1, 2):
        with pytest.raises(InputError, match="no such thing"):
            run_forked([int, refuse], n_processes)
