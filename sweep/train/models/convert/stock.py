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
    read: Callable[[Json], ModelConfig]  # raises InputError for unsupported settings


def _unmet(config: ModelConfig, needs: Mapping[str, tuple[Any, ...]]) -> list[str]:
    return [
        f"{key}={' or '.join(str(choice).lower() for choice in choices)}"
        for key, choices in needs.items()
        if getattr(config, key) not in choices
    ]


def _require(config: Json, needs: Mapping[str, tuple[Any, ...]]) -> None:
    """Raise InputError for the first unmet entry of `needs`, which maps keys to accepted values.

    A missing key has the stock default, which is the first accepted value.
    """
    for key, choices in needs.items():
        value = config.get(key, choices[0])
        if value not in choices:
            listed = " or ".join(repr(choice) for choice in choices)
            raise InputError(f"config.json has {key}={value!r}, which is not supported: it must be {listed}")


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


def _gpt2_read(config: Json) -> ModelConfig:
    activations = {stock: own for own, stock in GPT2_ACTIVATIONS.items()} | {"gelu_pytorch_tanh": "gelu"}
    _require(
        config,
        {
            "activation_function": tuple(activations),
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
            "add_cross_attention": (False,),
        },
    )
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


def _llama_read(config: Json) -> ModelConfig:
    d_model, n_heads = config["hidden_size"], config["num_attention_heads"]
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    _require(config, {"hidden_act": ("silu",), "head_dim": (d_model // n_heads, None)})
    _require(rope, {"rope_type": ("default",)})
    return ModelConfig(
        vocab_size=config["vocab_size"],
        seq_len=config["max_position_embeddings"],
        d_model=d_model,
        n_layers=config["num_hidden_layers"],
        n_heads=n_heads,
        n_kv_heads=config.get("num_key_value_heads") or n_heads,
        d_ff=config["intermediate_size"],
        norm="rms",
        norm_eps=config.get("rms_norm_eps", 1e-6),
        positions="rope",
        rope_base=rope.get("rope_theta") or config.get("rope_theta", 10_000.0),
        activation="swiglu",
        bias=bool(config.get("attention_bias") or config.get("mlp_bias")),
        tied=config.get("tie_word_embeddings", False),
        qk_norm=False,
        qk_gain=1.0,
        embedding_scale=d_model**-0.5,
    )


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
)

STOCK_CLASSES = {stock.model_type: stock for stock in (GPT2, LLAMA)}
