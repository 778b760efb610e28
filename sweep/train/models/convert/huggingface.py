"""Conversion of a decoder to and from a checkpoint of a stock Hugging Face class.

transformers is not needed: a checkpoint is config.json and model.safetensors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from sweep.config import ModelConfig
from sweep.errors import DataError, InputError
from sweep.train.models.convert.stock import STOCK_CLASSES, StockClass, without_nulls
from sweep.train.models.gpt import GPT

Tensors = Mapping[str, Tensor]

BUFFERS = re.compile(r"attn\.(bias|masked_bias)$|rotary_emb\.inv_freq$")
"""Buffers in old checkpoints: causal masks and rotary frequencies."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StockCheckpoint:
    """Checkpoint of a stock class."""

    config: Mapping[str, Any]  # config.json
    tensors: Tensors  # model.safetensors, by the class's names


def to_huggingface(config: ModelConfig, tensors: Tensors) -> StockCheckpoint:
    """Convert weights, named as in `GPT.named_parameters`, to a stock class with equal logits up to rounding.

    Missing biases become zeros if the class always has them; an embedding scale and mup's multipliers are
    folded into the weights. Raises InputError, naming the keys, when no stock class can express the model.
    """
    stock = stock_class(config)
    config, tensors = _unscaled(*_without_multipliers(config, tensors))
    config = replace(config, bias=config.bias or stock.always_biased)
    stock_tensors: dict[str, Tensor] = {}
    for name, shape in _parameters(config):
        tensor = tensors[name] if name in tensors else torch.zeros(shape)
        stock_tensors |= _named(stock, config, name, tensor)
    common = {
        "architectures": [stock.name],
        "model_type": stock.model_type,
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tied,
        "dtype": "float32",
    }
    return StockCheckpoint(config=common | stock.write(config), tensors=stock_tensors)


def from_huggingface(checkpoint: StockCheckpoint) -> GPT:
    """Convert a stock checkpoint to the decoder, in fp32, with equal logits up to rounding.

    Raises InputError for an unsupported class or setting, DataError for tensors that do not fit.
    """
    stock = STOCK_CLASSES.get(str(checkpoint.config.get("model_type")))
    if stock is None:
        raise InputError(
            f"config.json has model_type={checkpoint.config.get('model_type')!r}: "
            f"weights can be read from {' and '.join(STOCK_CLASSES)}"
        )
    given = without_nulls(checkpoint.config)
    try:
        config = stock.read(given)
    except KeyError as error:
        raise DataError(f"config.json has no {error.args[0]}, which {stock.name} requires") from None
    left = {name.removeprefix(stock.prefix): tensor for name, tensor in checkpoint.tensors.items()}
    unbiased = stock.unbiased(given)
    converted = {
        name: torch.zeros(shape) if _is_bias_of(name, unbiased) else _taken(stock, config, name, shape, left)
        for name, shape in _parameters(config)
    }
    if config.tied:
        left.pop("lm_head.weight", None)
    unknown = [name for name in left if not BUFFERS.search(name)]
    if unknown:
        raise DataError(f"unknown tensor {unknown[0]} in the checkpoint of a {stock.name}")
    model = GPT(config)
    model.load_state_dict(converted, strict=False)  # a tied head is the embedding
    return model


def stock_class(config: ModelConfig) -> StockClass:
    """Return the stock class that can express a model. Raises InputError, naming the keys, if none can."""
    lacking = {stock.name: stock.lacks(config) for stock in STOCK_CLASSES.values()}
    for stock in STOCK_CLASSES.values():
        if not lacking[stock.name]:
            return stock
    wanted = "; ".join(f"{name} would need {', '.join(keys)}" for name, keys in lacking.items())
    raise InputError(f"no stock class of transformers expresses this model: {wanted}")


# --- files --------------------------------------------------------------------------------------------


def write_checkpoint(directory: Path, checkpoint: StockCheckpoint) -> None:
    """Write config.json and model.safetensors into `directory`, which must be there."""
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}
    (directory / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
    text = json.dumps(dict(checkpoint.config), indent=2, allow_nan=False) + "\n"
    (directory / "config.json").write_text(text)


def read_checkpoint(directory: Path) -> StockCheckpoint:
    """Read config.json and model.safetensors back. Raises DataError when one is missing or damaged."""
    try:
        config = json.loads((directory / "config.json").read_text())
        tensors = load_file(directory / "model.safetensors")
    except FileNotFoundError as error:
        raise DataError(
            f"{directory} has no {Path(str(error.filename or 'model.safetensors')).name}: a checkpoint is "
            f"config.json and one model.safetensors"
        ) from None
    except (SafetensorError, ValueError) as error:
        raise DataError(f"{directory} is damaged: {error}") from None
    if not isinstance(config, dict):
        raise DataError(f"{directory / 'config.json'} is not a JSON object")
    return StockCheckpoint(config=config, tensors=tensors)


# --- names --------------------------------------------------------------------------------------------


def _parameters(config: ModelConfig) -> Iterator[tuple[str, torch.Size]]:
    """Yield the decoder's parameters and their shapes; a tied head is not one."""
    with torch.device("meta"):
        model = GPT(config)
    for name, parameter in model.named_parameters():
        yield name, parameter.shape


def _stock_names(stock: StockClass, parameter: str) -> list[str]:
    """Return the stock names, without prefix, of a decoder parameter such as blocks.0.mlp.up.weight."""
    module, _, leaf = parameter.rpartition(".")
    leaf = "weight" if leaf == "gain" else leaf
    if not module.startswith("blocks."):
        return [f"{name}.{leaf}" for name in stock.modules[module]]
    _, index, inside = module.split(".", 2)
    return [f"{stock.block.format(index)}{name}.{leaf}" for name in stock.block_modules[inside]]


def _named(stock: StockClass, config: ModelConfig, parameter: str, tensor: Tensor) -> dict[str, Tensor]:
    """Return the stock tensors, with prefix, of one decoder tensor."""
    names = _stock_names(stock, parameter)
    parts = torch.split(tensor, [config.d_model, config.d_kv, config.d_kv]) if len(names) == 3 else (tensor,)
    return {
        name if name.startswith("lm_head") else stock.prefix + name: part.mT
        if _transposed(stock, parameter, part)
        else part
        for name, part in zip(names, parts, strict=True)
    }


def _taken(
    stock: StockClass, config: ModelConfig, parameter: str, shape: torch.Size, left: dict[str, Tensor]
) -> Tensor:
    """Assemble one decoder tensor from stock tensors, removing them from `left`."""
    names = _stock_names(stock, parameter)
    missing = [name for name in names if name not in left]
    if missing:
        raise DataError(f"the checkpoint has no {missing[0]}, which {stock.name} requires")
    tensor = torch.cat([left.pop(name) for name in names]).float()
    tensor = tensor.mT if _transposed(stock, parameter, tensor) else tensor
    if tensor.shape != shape:
        raise DataError(
            f"{names[0]} of the checkpoint has shape {tuple(tensor.shape)}, config.json gives {tuple(shape)}"
        )
    return tensor


def _is_bias_of(parameter: str, modules: tuple[str, ...]) -> bool:
    """Return True for the bias of a block module with a name that starts with one of `modules`."""
    _, _, inside = parameter.partition("blocks.")
    return parameter.endswith(".bias") and inside.partition(".")[2].startswith(modules or ("-",))


def _transposed(stock: StockClass, parameter: str, tensor: Tensor) -> bool:
    return stock.transposed and parameter.startswith("blocks.") and tensor.dim() == 2


def _without_multipliers(config: ModelConfig, tensors: Tensors) -> tuple[ModelConfig, Tensors]:
    """Fold output_scale into the last norm and attention_scale into the queries."""
    last = {"norm.gain", "norm.bias"}
    folded = {name: t * config.output_scale if name in last else t for name, t in tensors.items()}
    for name in folded:
        if ".attention.qkv." in name and config.attention_scale != 1:
            query, rest = torch.split(folded[name], [config.d_model, 2 * config.d_kv])
            folded[name] = torch.cat((query * config.attention_scale, rest))
    return replace(config, output_scale=1.0, attention_scale=1.0), folded


def _unscaled(config: ModelConfig, tensors: Tensors) -> tuple[ModelConfig, Tensors]:
    """Fold the embedding's multiplier s into the weights.

    Untied tables are multiplied by s. With tied tables the whole residual stream is divided by s instead: all
    matrices that write to it are divided by s, and every norm's eps by s², which keeps the norms' outputs.
    """
    scale = config.input_scale
    plain = replace(config, embedding_scale=config.d_model**-0.5)
    if not config.tied:
        tables = {"embedding.weight", "positions.weight"}
        return plain, {name: t * scale if name in tables else t for name, t in tensors.items()}
    writers = re.compile(r"\.(attention\.out|mlp\.down)\.")
    divided = {name: t / scale if writers.search(name) else t for name, t in tensors.items()}
    return replace(plain, norm_eps=config.norm_eps / scale**2), divided
