"""Stock classes of Hugging Face transformers that can express the decoder, with their names of parts.

Decoder names are on the left, stock names on the right. Source: modeling_gpt2.py and modeling_llama.py of
transformers; a test compares the logits of both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sweep.config import ModelConfig
from sweep.errors import InputError

Json = Mapping[str, Any]

IGNORED_KEYS = frozenset(
    "model_type architectures dtype torch_dtype transformers_version _name_or_path _attn_implementation "
    "_attn_implementation_autoset use_cache gradient_checkpointing use_flash_attention_2 initializer_range "
    "bos_token_id eos_token_id pad_token_id sep_token_id decoder_start_token_id tokenizer_class prefix "
    "id2label label2id num_labels problem_type finetuning_task task_specific_params "
    "output_hidden_states output_attentions return_dict return_dict_in_generate output_scores "
    "chunk_size_feed_forward torchscript use_bfloat16 tf_legacy_loss "
    "attention_dropout attn_pdrop embd_pdrop resid_pdrop attn_dropout "
    "summary_type summary_use_proj summary_activation summary_proj_to_labels summary_first_dropout "
    "reorder_and_upcast_attn n_ctx max_length min_length do_sample early_stopping num_beams num_beam_groups "
    "diversity_penalty temperature top_k top_p typical_p repetition_penalty length_penalty "
    "no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids num_return_sequences "
    "forced_bos_token_id forced_eos_token_id remove_invalid_values exponential_decay_length_penalty "
    "suppress_tokens begin_suppress_tokens".split()
)
"""Keys of config.json that have no effect on the logits in evaluation: names, special tokens, dropout,
initialisation, outputs and generation."""

COMMON_NEEDS: Mapping[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "is_decoder": (False, True),
    "is_encoder_decoder": (False,),
    "tie_encoder_decoder": (False,),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
}
"""Accepted values of keys that every class inherits; the first is the default."""

COUNTS = frozenset(
    "vocab_size n_positions n_embd n_layer n_head n_inner max_position_embeddings hidden_size "
    "num_hidden_layers num_attention_heads num_key_value_heads intermediate_size".split()
)
NUMBERS = frozenset("layer_norm_epsilon rms_norm_eps rope_theta".split())
FLAGS = frozenset("tie_word_embeddings attention_bias mlp_bias".split())
"""Keys of config.json that are read, by type: positive integers, positive numbers, truth values."""

GPT2_ACTIVATIONS = {"gelu": "gelu_new", "relu2": "relu2"}
"""Decoder to stock names; transformers has a second name for the tanh form of GELU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StockClass:
    """A stock class: its requirements of a model, its config, and its names of modules."""

    name: str  # architecture in config.json
    model_type: str
    prefix: str  # of every name except the head's
    block: str  # of a block's names, with the block's index
    modules: Mapping[str, tuple[str, ...]]  # decoder to stock; several are concatenated
    block_modules: Mapping[str, tuple[str, ...]]
    transposed: bool  # block matrices are (in, out) in the stock class, (out, in) in the decoder
    always_biased: bool  # a model without biases is exported with zeros
    lacks: Callable[[ModelConfig], list[str]]  # keys with required values that the model does not meet
    write: Callable[[ModelConfig], dict[str, Any]]  # config.json without the entries common to all classes
    read: Callable[[Json], ModelConfig]  # raises InputError for unknown keys and unsupported settings
    unbiased: Callable[[Json], tuple[str, ...]]  # modules of a block without biases in this config.json


def _unmet(config: ModelConfig, needs: Mapping[str, tuple[Any, ...]]) -> list[str]:
    return [
        f"{key}={' or '.join(str(choice).lower() for choice in choices)}"
        for key, choices in needs.items()
        if getattr(config, key) not in choices
    ]


def _require(config: Json, reads: str, needs: Mapping[str, tuple[Any, ...]], place: str = "") -> None:
    """Raise InputError for the first key that is unknown or has a value that is not accepted.

    `reads` lists the keys that the conversion reads. `needs` maps further keys to their accepted values, the
    first being the class's default. Any other key could change the model, so it is an error unless it is null
    or known to have no effect (`IGNORED_KEYS`).
    """
    known = {*reads.split(), *needs, *IGNORED_KEYS}
    for key, value in config.items():
        if key not in known and value is not None:
            raise InputError(
                f"config.json has {place}{key}={value!r}, which is unknown and may change the model: "
                f"remove it if it has no effect on the logits"
            )
    for key, choices in needs.items():
        value = config.get(key, choices[0])
        if value not in choices:
            listed = " or ".join(repr(choice) for choice in choices)
            raise InputError(
                f"config.json has {place}{key}={value!r}, which is not supported: it must be {listed}"
            )


def without_nulls(config: Json, place: str = "") -> dict[str, Any]:
    """Return the entries of config.json that are not null, which is the default of every key.

    Raises InputError for a value of another type than its key's: "false" would be read as true.
    """
    given = {key: value for key, value in config.items() if value is not None}
    for key, value in given.items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
        for keys, is_valid, wanted in (
            (COUNTS, is_number and isinstance(value, int), "a positive integer"),
            (NUMBERS, is_number, "a positive number"),
            (FLAGS, isinstance(value, bool), "true or false"),
        ):
            if key in keys and not is_valid:
                raise InputError(f"config.json has {place}{key}={value!r}: it must be {wanted}")
    return given


def _gpt2_lacks(config: ModelConfig) -> list[str]:
    needs = {
        "norm": ("layer",),
        "positions": ("learned",),
        "activation": tuple(GPT2_ACTIVATIONS),
        "qk_norm": (False,),
        "n_kv_heads": (config.n_heads,),
    }
    return _unmet(config, needs)


def _gpt2_write(config: ModelConfig) -> dict[str, Any]:
    return {
        "n_positions": config.seq_len,
        "n_embd": config.d_model,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "n_inner": config.d_ff,
        "activation_function": GPT2_ACTIVATIONS[config.activation],
        "layer_norm_epsilon": config.norm_eps,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }


GPT2_KEYS = "vocab_size n_positions n_embd n_layer n_head n_inner layer_norm_epsilon tie_word_embeddings "
"""Keys of config.json that `_gpt2_read` reads."""


def _gpt2_read(config: Json) -> ModelConfig:
    activations = {stock: own for own, stock in GPT2_ACTIVATIONS.items()} | {"gelu_pytorch_tanh": "gelu"}
    needs: dict[str, tuple[Any, ...]] = {
        **COMMON_NEEDS,
        "activation_function": tuple(activations),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
    }
    _require(config, GPT2_KEYS, needs)
    d_model, n_heads = config["n_embd"], config["n_head"]
    return ModelConfig(
        vocab_size=config["vocab_size"],
        seq_len=config["n_positions"],
        d_model=d_model,
        n_layers=config["n_layer"],
        n_heads=n_heads,
        n_kv_heads=n_heads,
        d_ff=config.get("n_inner") or 4 * d_model,
        norm="layer",
        norm_eps=config.get("layer_norm_epsilon", 1e-5),
        positions="learned",
        rope_base=10_000.0,
        activation=activations[config.get("activation_function", "gelu_new")],  # type: ignore[arg-type]
        bias=True,
        tied=config.get("tie_word_embeddings", True),
        qk_norm=False,
        qk_gain=1.0,
        embedding_scale=d_model**-0.5,
    )


def _llama_lacks(config: ModelConfig) -> list[str]:
    needs = {"norm": ("rms",), "positions": ("rope",), "activation": ("swiglu",), "qk_norm": (False,)}
    return _unmet(config, needs)


def _llama_write(config: ModelConfig) -> dict[str, Any]:
    return {
        "max_position_embeddings": config.seq_len,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.d_ff,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_base,  # transformers 4
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},  # transformers 5
        "attention_bias": config.bias,
        "mlp_bias": config.bias,
        "attention_dropout": 0.0,
    }


LLAMA_KEYS = (
    "vocab_size max_position_embeddings hidden_size num_hidden_layers num_attention_heads "
    "num_key_value_heads intermediate_size rms_norm_eps rope_theta rope_parameters rope_scaling "
    "attention_bias mlp_bias tie_word_embeddings"
)
"""Keys of config.json that `_llama_read` reads."""


def _llama_read(config: Json) -> ModelConfig:
    d_model, n_heads = config["hidden_size"], config["num_attention_heads"]
    n_layers = config["num_hidden_layers"]
    needs: dict[str, tuple[Any, ...]] = {
        **COMMON_NEEDS,
        "hidden_act": ("silu",),
        "head_dim": (d_model // n_heads, None),
        "pretraining_tp": (1,),  # other values only split the matrices, with other rounding
        "partial_rotary_factor": (1.0, None),
        "sliding_window": (None,),
        "use_sliding_window": (False, None),
        "layer_types": (["full_attention"] * n_layers, None),
    }
    _require(config, LLAMA_KEYS, needs)
    return ModelConfig(
        vocab_size=config["vocab_size"],
        seq_len=config["max_position_embeddings"],
        d_model=d_model,
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=config.get("num_key_value_heads") or n_heads,
        d_ff=config["intermediate_size"],
        norm="rms",
        norm_eps=config.get("rms_norm_eps", 1e-6),
        positions="rope",
        rope_base=_rope_base(config),
        activation="swiglu",
        bias=bool(config.get("attention_bias") or config.get("mlp_bias")),
        tied=config.get("tie_word_embeddings", False),
        qk_norm=False,
        qk_gain=1.0,
        embedding_scale=d_model**-0.5,
    )


def _rope_base(config: Json) -> float:
    """Return θ of plain rotary embeddings, given under any name. Raises InputError for scaled ones.

    transformers 5 writes rope_parameters with rope_type; 4 wrote rope_theta and rope_scaling, with
    rope_type or, before 4.43, type.
    """
    needs = {"rope_type": ("default",), "type": ("default",), "partial_rotary_factor": (1.0, None)}
    thetas = {} if config.get("rope_theta") is None else {"rope_theta": config["rope_theta"]}
    for key in ("rope_parameters", "rope_scaling"):
        rope = config.get(key) or {}
        if not isinstance(rope, Mapping):
            raise InputError(f"config.json has {key}={rope!r}, which is not supported: it must be an object")
        _require(without_nulls(rope, f"{key}."), "rope_theta", needs, f"{key}.")
        if rope.get("rope_theta") is not None:
            thetas[f"{key}.rope_theta"] = rope["rope_theta"]
    if len({float(theta) for theta in thetas.values()}) > 1:
        shown = ", ".join(f"{key}={theta}" for key, theta in thetas.items())
        raise InputError(f"config.json has {shown}, which contradict each other: keep the right one")
    return float(next(iter(thetas.values()), 10_000.0))


def _llama_unbiased(config: Json) -> tuple[str, ...]:
    attention = () if config.get("attention_bias") else ("attention.",)
    return attention if config.get("mlp_bias") else (*attention, "mlp.")


GPT2 = StockClass(
    name="GPT2LMHeadModel",
    model_type="gpt2",
    prefix="transformer.",
    block="h.{}.",
    modules={"embedding": ("wte",), "positions": ("wpe",), "norm": ("ln_f",), "head": ("lm_head",)},
    block_modules={
        "attention_norm": ("ln_1",),
        "attention.qkv": ("attn.c_attn",),
        "attention.out": ("attn.c_proj",),
        "mlp_norm": ("ln_2",),
        "mlp.up": ("mlp.c_fc",),
        "mlp.down": ("mlp.c_proj",),
    },
    transposed=True,
    always_biased=True,
    lacks=_gpt2_lacks,
    write=_gpt2_write,
    read=_gpt2_read,
    unbiased=lambda config: (),
)

LLAMA = StockClass(
    name="LlamaForCausalLM",
    model_type="llama",
    prefix="model.",
    block="layers.{}.",
    modules={"embedding": ("embed_tokens",), "norm": ("norm",), "head": ("lm_head",)},
    block_modules={
        "attention_norm": ("input_layernorm",),
        "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "attention.out": ("self_attn.o_proj",),
        "mlp_norm": ("post_attention_layernorm",),
        "mlp.gate": ("mlp.gate_proj",),
        "mlp.up": ("mlp.up_proj",),
        "mlp.down": ("mlp.down_proj",),
    },
    transposed=False,
    always_biased=False,
    lacks=_llama_lacks,
    write=_llama_write,
    read=_llama_read,
    unbiased=_llama_unbiased,
)

STOCK_CLASSES = {stock.model_type: stock for stock in (GPT2, LLAMA)}
