"""Weights to and from the stock classes, against transformers itself."""

import json
import os
from dataclasses import replace

import pytest
import torch

from sweep.errors import DataError, InputError
from sweep.train.models.convert.huggingface import (
    StockCheckpoint,
    from_huggingface,
    read_checkpoint,
    stock_class,
    to_huggingface,
    write_checkpoint,
)
from sweep.train.models.gpt import GPT
from tests.architectures import architectures, label
from tests.configs import TINY

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here may ask a server
transformers = pytest.importorskip("transformers")

TOKENS = torch.randint(0, 97, (3, 16), generator=torch.Generator().manual_seed(0))


def shaken(model, seed=0):
    """Every parameter drawn anew, gains and biases too, so that none is trivially right."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.0, parameter.size(-1) ** -0.5, generator=generator)
            if parameter.dim() == 1 and not name.endswith("bias"):
                parameter += 1.0
    return model


def logits(model):
    with torch.no_grad():
        out = model.eval()(TOKENS)
    return out if isinstance(out, torch.Tensor) else out.logits


def assert_equal_logits(one, other):
    assert torch.allclose(one, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))


THEIRS = {
    "gpt2": transformers.GPT2Config(
        vocab_size=97, n_positions=16, n_embd=24, n_layer=2, n_head=3, layer_norm_epsilon=1e-3
    ),
    "gpt2 untied": transformers.GPT2Config(
        vocab_size=97, n_positions=16, n_embd=24, n_layer=2, n_head=4, n_inner=40,
        activation_function="gelu_pytorch_tanh", tie_word_embeddings=False,
    ),
    "gpt2 relu2": transformers.GPT2Config(
        vocab_size=97, n_positions=16, n_embd=24, n_layer=1, n_head=1, activation_function="relu2"
    ),
    "llama": transformers.LlamaConfig(
        vocab_size=97, max_position_embeddings=16, hidden_size=24, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-3,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
    ),
    "llama tied, biased": transformers.LlamaConfig(
        vocab_size=97, max_position_embeddings=16, hidden_size=24, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=4, tie_word_embeddings=True, attention_bias=True, mlp_bias=True,
    ),
    "llama biased in attention": transformers.LlamaConfig(
        vocab_size=97, max_position_embeddings=16, hidden_size=24, intermediate_size=40, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=1, attention_bias=True,
    ),
}  # fmt: skip


def stock_model(name):
    config = THEIRS[name]
    cls = transformers.GPT2LMHeadModel if config.model_type == "gpt2" else transformers.LlamaForCausalLM
    return shaken(cls(config))


@pytest.mark.parametrize("name", THEIRS)
def test_their_weights_give_their_logits_here(name, tmp_path):
    theirs = stock_model(name)
    theirs.save_pretrained(tmp_path)
    ours = from_huggingface(read_checkpoint(tmp_path))
    assert_equal_logits(logits(ours), logits(theirs))


EXPRESSIBLE = {  # norm, positions, activation, heads of keys among four
    ("rms", "rope", "swiglu", 4), ("rms", "rope", "swiglu", 2),
    ("layer", "learned", "gelu", 4), ("layer", "learned", "relu2", 4),
}  # fmt: skip
OURS = [
    pytest.param(model, id=label(model))
    for model in architectures(embedding_scale=0.7, norm_eps=1e-3)
    if not model.qk_norm and (model.norm, model.positions, model.activation, model.n_kv_heads) in EXPRESSIBLE
]


@pytest.mark.parametrize("config", OURS)
def test_our_weights_give_our_logits_in_the_stock_class(config, tmp_path):
    """Both ways of folding the embedding scale, zeros for biases, shared keys: all are here."""
    ours = shaken(GPT(config))
    write_checkpoint(tmp_path, to_huggingface(config, dict(ours.named_parameters())))
    theirs, loading = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(theirs).__name__ == stock_class(config).name
    assert not any(loading.values()), loading  # nothing missing, nothing left over
    assert_equal_logits(logits(theirs), logits(ours))


@pytest.mark.parametrize("config", OURS[:2] + OURS[-2:])
def test_multipliers_of_mup_are_folded_in(config):
    (config,) = config.values if hasattr(config, "values") else (config,)
    scaled = replace(config, output_scale=0.6, attention_scale=0.7)
    ours = shaken(GPT(scaled))
    again = from_huggingface(to_huggingface(scaled, dict(ours.named_parameters())))
    assert again.config.output_scale == again.config.attention_scale == 1.0
    assert_equal_logits(logits(again), logits(ours))


def test_all_that_a_stock_class_expresses_was_tested():
    expressible = []
    for config in architectures(embedding_scale=0.7, norm_eps=1e-3):
        try:
            stock_class(config)
        except InputError:
            continue
        expressible.append(config)
    assert expressible == [param.values[0] for param in OURS]


@pytest.mark.parametrize("config", OURS)
def test_a_round_trip_is_the_same_function(config):
    ours = shaken(GPT(config))
    again = from_huggingface(to_huggingface(config, dict(ours.named_parameters())))
    assert_equal_logits(logits(again), logits(ours))


def test_a_model_no_stock_class_expresses_is_refused_with_the_keys():
    with pytest.raises(InputError) as refusal:
        stock_class(TINY)
    assert str(refusal.value) == (
        "no stock class of transformers expresses this model: GPT2LMHeadModel would need norm=layer, "
        "positions=learned, qk_norm=false; LlamaForCausalLM would need activation=swiglu, qk_norm=false"
    )
    shared = replace(TINY, n_heads=4, n_kv_heads=2, norm="layer", positions="learned", qk_norm=False)
    with pytest.raises(InputError, match="GPT2LMHeadModel would need n_kv_heads=4; Llama"):
        stock_class(shared)


def checkpoint(name="gpt2", **changes):
    theirs = stock_model(name)
    config = json.loads(theirs.config.to_json_string(use_diff=False))
    return StockCheckpoint(config=config | changes, tensors=theirs.state_dict())


REFUSED = [
    ("gpt2", {"model_type": "mamba"}, "model_type='mamba': weights can be read from gpt2 and llama"),
    (
        "gpt2",
        {"activation_function": "gelu"},
        "activation_function='gelu', which is not supported: it must",
    ),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
    ("llama", {"head_dim": 8}, "head_dim=8, which is not supported: it must be 6"),
    ("llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "rope_type='llama3'"),
    ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "rope_scaling.factor=2.0, which is"),
    ("llama", {"rope_scaling": {"type": "linear"}}, "rope_scaling.type='linear', which is not supported"),
    ("llama", {"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "rope_scaling.factor=4.0"),
    ("llama", {"rope_scaling": "linear"}, "rope_scaling='linear', which is not supported: it must be an"),
    ("llama", {"rope_theta": 7.0}, "rope_theta=7.0, rope_parameters.rope_theta=500.0, which contradict"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5, which is not supported"),
    (
        "llama",
        {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.25}},
        "rope_parameters.partial_rotary_factor=0.25, which is not supported: it must be 1.0",
    ),
    ("llama", {"sliding_window": 8}, "sliding_window=8, which is not supported: it must be None"),
    ("llama", {"layer_types": ["sliding_attention", "full_attention"]}, "layer_types=['sliding_attention'"),
    ("llama", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0, which is unknown and may"),
    ("llama", {"residual_multiplier": 0.2}, "residual_multiplier=0.2, which is unknown and may change"),
    ("llama", {"quantization_config": {"bits": 4}}, "quantization_config={'bits': 4}, which is not"),
    ("llama", {"tie_word_embeddings": "false"}, "tie_word_embeddings='false': it must be true or false"),
    ("llama", {"attention_bias": 1}, "attention_bias=1: it must be true or false"),
    ("llama", {"num_hidden_layers": "2"}, "num_hidden_layers='2': it must be a positive integer"),
    ("llama", {"num_key_value_heads": 0}, "num_key_value_heads=0: it must be a positive integer"),
    ("llama", {"rms_norm_eps": "1e-5"}, "rms_norm_eps='1e-5': it must be a positive number"),
    ("llama", {"rope_parameters": {"rope_theta": True}}, "rope_parameters.rope_theta=True: it must be a pos"),
    ("gpt2", {"n_inner": 40.5}, "n_inner=40.5: it must be a positive integer"),
    ("gpt2", {"n_query_groups": 1}, "n_query_groups=1, which is unknown and may change the model: remove"),
]

PUBLISHED = {  # keys of published checkpoints, with other sizes
    "gpt2": {
        "architectures": ["GPT2LMHeadModel"], "n_ctx": 16, "task_specific_params": {"text-generation": {}},
        "summary_type": "cls_index", "resid_pdrop": 0.1, "output_past": None,
    },
    "llama": {
        "_name_or_path": "x", "pretraining_tp": 1, "rope_scaling": None, "torch_dtype": "float16",
        "rope_theta": 500.0, "transformers_version": "4.31.0.dev0", "use_cache": True,
        "sliding_window": None, "partial_rotary_factor": 1.0, "layer_types": ["full_attention"] * 2,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_keys_of_published_checkpoints_are_known(name):
    ours = from_huggingface(checkpoint(name, **PUBLISHED[name]))
    assert_equal_logits(logits(ours), logits(stock_model(name)))


def test_rotary_embeddings_in_the_spelling_of_transformers_4():
    whole = checkpoint("llama")
    old = {key: value for key, value in whole.config.items() if key != "rope_parameters"}
    ours = from_huggingface(replace(whole, config=old | {"rope_theta": 500.0, "rope_scaling": None}))
    assert_equal_logits(logits(ours), logits(stock_model("llama")))


def test_biases_are_read_exactly_where_the_config_has_them():
    whole = checkpoint("llama biased in attention")
    tensors = dict(whole.tensors)
    del tensors["model.layers.0.self_attn.k_proj.bias"]
    with pytest.raises(DataError, match=r"has no layers\.0\.self_attn\.k_proj\.bias, which LlamaFor"):
        from_huggingface(replace(whole, tensors=tensors))
    biased = checkpoint("llama tied, biased")
    with pytest.raises(DataError, match=r"unknown tensor layers\.0\.self_attn\.\w_proj\.bias"):
        from_huggingface(replace(biased, config={**biased.config, "attention_bias": False}))
    gone = {name: tensor for name, tensor in biased.tensors.items() if "proj.bias" not in name}
    with pytest.raises(DataError, match=r"q_proj\.bias, which LlamaForCausalLM requires"):
        from_huggingface(replace(biased, tensors=gone))


@pytest.mark.parametrize(("name", "changes", "sentence"), REFUSED)
def test_settings_that_are_not_ours_are_refused(name, changes, sentence):
    with pytest.raises(InputError) as refusal:
        from_huggingface(checkpoint(name, **changes))
    assert sentence in str(refusal.value)


def test_null_is_the_default_or_missing():
    with pytest.raises(DataError, match=r"config\.json has no hidden_size, which LlamaForCausalLM requires"):
        from_huggingface(checkpoint("llama", hidden_size=None))
    assert from_huggingface(checkpoint("gpt2", layer_norm_epsilon=None)).config.norm_eps == 1e-5


def test_tensors_that_do_not_fit_are_refused():
    whole = checkpoint("llama")
    tensors = dict(whole.tensors)
    extra = replace(whole, tensors=tensors | {"model.layers.0.self_attn.q_norm.weight": torch.ones(6)})
    with pytest.raises(
        DataError,
        match=r"unknown tensor layers.0.self_attn.q_norm.weight in the checkpoint of a LlamaForCausalLM",
    ):
        from_huggingface(extra)
    last = tensors.pop("model.layers.1.self_attn.k_proj.weight")
    with pytest.raises(DataError, match=r"has no layers.1.self_attn.k_proj.weight, which LlamaForCausalLM"):
        from_huggingface(replace(whole, tensors=tensors))
    narrow = tensors | {"model.layers.1.self_attn.k_proj.weight": last[:6]}
    with pytest.raises(DataError, match=r"q_proj.weight of the checkpoint has shape \(42, 24\), config.json"):
        from_huggingface(replace(whole, tensors=narrow))
    with pytest.raises(DataError, match=r"config.json has no hidden_size, which LlamaForCausalLM requires"):
        from_huggingface(replace(whole, config={"model_type": "llama"}))


def test_old_names_without_a_prefix_and_with_masks_are_read():
    theirs = stock_model("gpt2")
    old = {name.removeprefix("transformer."): tensor for name, tensor in theirs.state_dict().items()}
    old |= {"h.0.attn.bias": torch.ones(1, 1, 16, 16), "h.1.attn.masked_bias": torch.tensor(-1e4)}
    ours = from_huggingface(replace(checkpoint("gpt2"), tensors=old))
    assert_equal_logits(logits(ours), logits(theirs))


def test_unreadable_directories_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"has no config.json: a checkpoint is config.json and one model"):
        read_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"has no model.safetensors: a checkpoint is"):
        read_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="is damaged"):
        read_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        read_checkpoint(tmp_path)
