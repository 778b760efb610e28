"""Values that look alike: 0, 1, true, false, null and texts are kept apart."""

import pytest

from sweep.config.compose import compose_experiment, compose_experiments
from sweep.errors import InputError


@pytest.mark.parametrize(
    "setting",
    [
        "seeds=[true]",
        "seeds=['1']",
        "budgets=['1e9']",
        "grid.d_model=[8,true]",
        "launch.n_workers=true",
        "optimizer.lr_multiplier=true",
        "trainer.keep_checkpoint=1",
        "trainer.keep_checkpoint='yes'",
        "fit.isoflop.robust=0",
    ],
)
def test_another_kind_of_value_is_refused(setting):
    with pytest.raises(InputError, match=r"it should be (a number|true or false), without quotes"):
        compose_experiment(["experiment=smoke", setting])


def test_options_of_sbatch_keep_their_kind():
    given = "launch.options={gpus: 1, nice: 0, exclusive: true, qos: 'true', reservation: '1'}"
    options = compose_experiment(["experiment=smoke", "launch=slurm", given]).launch.options
    assert {name: repr(value) for name, value in options.items()} == {
        "gpus": "1",
        "nice": "0",
        "exclusive": "True",
        "qos": "'true'",
        "reservation": "'1'",
    }


def test_texts_that_look_like_numbers_stay_texts():
    experiment = compose_experiment(["experiment=smoke", "name=2024", "results_dir=1e3", "data_dir=true"])
    assert (experiment.name, experiment.results_dir, experiment.data_dir) == ("2024", "1e3", "true")
    assert compose_experiment(["experiment=smoke", "data_dir=null"]).data_dir is None


def test_arms_keep_numbers_and_texts_apart():
    values = "arms={launch.account:['1',one]}"
    arms = compose_experiments(["experiment=smoke", "launch=slurm", values])
    assert [arm.launch.account for arm in arms] == ["1", "one"]
