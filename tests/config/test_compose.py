"""Composition: the search path of configs, quoting of paths, and Hydra's errors in one sentence."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from sweep.config.compose import (
    compose,
    compose_experiment,
    compose_experiments,
    packaged_configs,
    search_path,
)
from sweep.config.quoting import quoted
from sweep.errors import InputError


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in (packaged_configs() / "experiment").glob("*.yaml"))
)
def test_every_packaged_experiment_composes_and_opens_with_its_command(name, caplog):
    assert compose_experiment([f"experiment={name}"]).name == name
    assert caplog.messages == []  # it sets nothing without effect
    opening = (packaged_configs() / "experiment" / f"{name}.yaml").read_text()[:1200]
    for word in (f"sweep run experiment={name}", "# Cost:", "# Expect:"):
        assert word in opening


def test_a_users_configs_come_before_the_packaged_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "configs" / "experiment"
    mine.mkdir(parents=True)
    (mine / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - smoke\nname: mine\nbudgets: [1e10]\n"
    )
    experiment = compose_experiment(["experiment=mine"])
    assert (experiment.name, experiment.budgets) == ("mine", (1e10,))
    assert experiment.grid.d_model == compose_experiment(["experiment=smoke"]).grid.d_model
    other = tmp_path / "elsewhere" / "experiment"
    other.mkdir(parents=True)
    (other / "mine.yaml").write_text("# @package _global_\ndefaults:\n  - smoke\nname: elsewhere\n")
    assert compose_experiment(["experiment=mine"], tmp_path / "elsewhere").name == "elsewhere"
    assert search_path(tmp_path / "elsewhere") == [other.parent, mine.parent, packaged_configs()]


def test_a_missing_config_dir_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"--config-dir .*nowhere is not a directory"):
        compose([], tmp_path / "nowhere")


@pytest.mark.parametrize("key", ["delimiter", "files"])
def test_texts_and_globs_mean_themselves(key):
    value = {"delimiter": "\\n<|end, of|>={}\n", "files": "some/**/*.txt"}[key]
    given = {"files": "x", key: value}
    data = compose_experiment(["data=text", *(f"data.{name}={text}" for name, text in given.items())]).data
    assert getattr(data, key) == ((value,) if key == "files" else value)


@pytest.mark.parametrize(
    "value", ["/a b/c", "x,y", "a=b", "it's", "back\\slash", "end\\", "{x}", "[1]", "ünï", "a:b#c"]
)
def test_paths_mean_themselves(value):
    override = OverridesParser.create().parse_override(quoted(f"data_dir={value}"))
    assert (override.get_key_element(), override.value()) == ("data_dir", value)


BROKEN = {
    "seq: [1,": "is not valid YAML",
    "a: 1\n\tb: 2": "is not valid YAML",
    "# @package _global_\ndefaults:\n  - broken\nname: x\n": "leads back to the file itself",
    "name: x\nbudgets: [1e9]\n": "does not begin with the line `# @package _global_`",
}


@pytest.mark.parametrize("content", BROKEN)
def test_a_users_broken_file_is_one_sentence(tmp_path, content):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "broken.yaml").write_text(content)
    with pytest.raises(InputError) as refusal:
        compose_experiment(["experiment=broken"], tmp_path)
    assert BROKEN[content] in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_only_path_keys_are_quoted():
    assert quoted("data_dir=null") == "data_dir=null"
    assert quoted("results_dir='a b'") == "results_dir='a b'"
    assert quoted("seeds=[0,1]") == "seeds=[0,1]"


REFUSED = [
    ("modl=3", "modl is not a known key: did you mean model? valid are "),
    ("model.n_layer=3", "model.n_layer is not a known key: did you mean model.n_layers"),
    ("experiment=foo", "experiment=foo not found: choose from cpu_stdlib"),
    ("optimizer=sgdx", "optimizer=sgdx not found: choose from adamw"),
    ("budgets=[1e9,", "[1e9, is not valid in Hydra's grammar"),
    ("+foo=1", "foo is not a known key"),
    ("~budgets", "budgets is missing: give it a value"),
    ("=3", "'=3' is not a valid override: write key=value"),
    ("~trainer", "trainer not found in the experiment's files: remove this override"),
    ("budget=[1e9]", "budget is not a known key: did you mean budgets? valid are "),
    ("arm=x", "arm is not a known key: did you mean arms"),
    ("data=text", "data.files is missing: give it a value"),
    ("data.roots=[x]", "data.roots has no effect with data=stdlib: it needs data=python"),
    ("data.rots=[x]", "data.rots is not a known key: did you mean data.roots"),
    ("data.source=wiki", "data.source='wiki' is not valid: choose from 'stdlib', 'python', 'text', "),
    ("data.holdout_frac=2", "data.holdout_frac=2 is not valid: it should be less than 1"),
    ("tokenizer.name=word", "tokenizer.name='word' is not valid: choose from 'byte', 'bpe', 'pretrained'"),
]


@pytest.mark.parametrize(("override", "sentence"), REFUSED)
def test_hydras_errors_become_one_sentence(override, sentence):
    with pytest.raises(InputError) as refusal:
        compose_experiment([override])
    assert str(refusal.value).startswith(sentence)
    assert "\n" not in str(refusal.value)


def test_arms_are_the_product_of_keys_and_groups():
    axes = "arms={optimizer.weight_decay:[0,0.1],model:[tiny,llama]}"
    arms = compose_experiments(["experiment=smoke", axes, "grid.d_model=[64,128]"])
    assert [arm.arm for arm in arms] == [
        "optimizer.weight_decay=0,model=tiny",
        "optimizer.weight_decay=0,model=llama",
        "optimizer.weight_decay=0.1,model=tiny",
        "optimizer.weight_decay=0.1,model=llama",
    ]
    assert [arm.optimizer.weight_decay for arm in arms] == [0, 0, 0.1, 0.1]
    assert [arm.model.activation for arm in arms] == ["relu2", "swiglu"] * 2
    assert {arm.name for arm in arms} == {"smoke"}
    assert compose_experiment(["experiment=smoke"]).arm is None


ARMS_REFUSED = [
    ("arms=3", "arms=3 is not valid: give keys with lists"),
    ("arms={seeds:3}", "arms.seeds=3 is not valid: give a list"),
    ("arms={model:[]}", "arms.model=[] is not valid"),
    ("arms={optimizer.lr:[0.1,0.1]}", "arms.optimizer.lr=[0.1, 0.1] holds a value twice"),
    ("arms={name:[a,b]}", "arms: name and results_dir are the same for all arms"),
    ("arms={optimizer.lrr:[1]}", "optimizer.lrr is not a known key: did you mean optimizer.lr"),
    ("arms={model:[nothing]}", "model=nothing not found: choose from"),
]


@pytest.mark.parametrize(("override", "sentence"), ARMS_REFUSED)
def test_arms_that_are_not_valid_are_refused(override, sentence):
    with pytest.raises(InputError) as refusal:
        compose_experiments(["experiment=smoke", override])
    assert str(refusal.value).startswith(sentence)


def mine(tmp_path, content):
    """Write an experiment, and return what composing it gives or the sentence that refuses it."""
    path = tmp_path / "experiment" / "mine.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"# @package _global_\ndefaults: [smoke%b\nname: mine\n" % content)
    try:
        return compose_experiment(["experiment=mine"], tmp_path)
    except InputError as refusal:
        return str(refusal)


@pytest.mark.parametrize("number", [b"010", b"-07", b"16:00", b"1:30:00"])
def test_numbers_that_yaml_reads_in_another_base_are_refused_unless_quoted(tmp_path, number):
    content = b"]\nlaunch: {name: slurm, options: {begin: %b}}"
    sentence = f"mine.yaml, line 3 holds {number.decode()}, which YAML reads as another number"
    assert sentence in mine(tmp_path, content % number)
    assert mine(tmp_path, content % (b"'%b'" % number)).launch.options == {"begin": number.decode()}
    assert mine(tmp_path, content % b"0x10").launch.options == {"begin": 16}


def test_a_group_given_as_a_key_names_the_defaults_list_that_works(tmp_path):
    sentence = mine(tmp_path, b"]\nschedule: linear")
    assert "write `- override /schedule: linear` in the file's defaults list" in sentence
    assert mine(tmp_path, b", override /schedule: linear]").schedule.name == "linear"


def test_a_file_that_is_not_utf8_is_named_with_its_line(tmp_path):
    assert mine(tmp_path, b"] # f\xfcr").endswith(
        "mine.yaml, line 2 has byte 0xfc, which is not UTF-8: save it as UTF-8"
    )


def test_a_list_in_place_of_a_section_is_one_sentence(tmp_path):
    assert mine(tmp_path, b"]\ndata: [stdlib]").startswith("experiment/mine.yaml has a list where a section")
    assert mine(tmp_path, b"]\nseeds: !!set {1}").startswith("config: Value 'set' is not a supported")


def test_a_file_in_place_of_a_packaged_default_is_checked(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tiny.yaml").write_text("a: &x [1]\nb: *x\n")
    with pytest.raises(InputError, match=r"tiny\.yaml, line 2 holds an alias"):
        compose_experiment(["experiment=smoke"], tmp_path)


def test_files_that_the_experiment_does_not_lead_to_are_not_read(tmp_path):
    for place in (tmp_path, tmp_path / "model"):
        place.mkdir(exist_ok=True)
        (place / "foreign.yaml").write_text("a: &x [1]\nb: *x\n")
    assert mine(tmp_path, b"]").name == "mine"
    assert "foreign.yaml, line 2 holds an alias" in mine(tmp_path, b", override /model: foreign]")
