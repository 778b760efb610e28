"""Weights in and out: a decoder of ours as a checkpoint of a stock Hugging Face class, and the reverse.

transformers is not needed for either: a checkpoint is config.json and model.safetensors.
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
from sweep.train.models.convert.stock import STOCK_CLASSES, StockClass
from sweep.train.models.gpt import GPT

Tensors = Mapping[str, Tensor]

BUFFERS = re.compile(r"attn\.(bias|masked_bias)$|rotary_emb\.inv_freq$")
"""Tensors in old checkpoints that are no weights: causal masks and rotary frequencies."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StockCheckpoint:
    """What a stock class loads."""

    config: Mapping[str, Any]  # config.json
    tensors: Tensors  # model.safetensors, by the class's own names


def to_huggingface(config: ModelConfig, tensors: Tensors) -> StockCheckpoint:
    """The decoder with these weights, by our names as in `GPT.named_parameters`, as a stock class.

    Where it has no biases and the class has, they are zeros; an embedding scale and mup's multipliers are
    folded into the weights. Logits are equal up to rounding. Raises InputError, naming the keys, when no
    stock class can express it.
    """
    stock = stock_class(config)
    config, tensors = _unscaled(*_without_multipliers(config, tensors))
    config = replace(config, bias=config.bias or stock.always_biased)
    theirs: dict[str, Tensor] = {}
    for name, shape in _parameters(config):
        tensor = tensors[name] if name in tensors else torch.zeros(shape)
        theirs |= _named(stock, config, name, tensor)
    common = {
        "architectures": [stock.name],
        "model_type": stock.model_type,
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tied,
        "dtype": "float32",
    }
    return StockCheckpoint(config=common | stock.write(config), tensors=theirs)


def from_huggingface(checkpoint: StockCheckpoint) -> GPT:
    """The decoder of ours with a stock checkpoint's weights, in fp32, its logits equal up to rounding.

    Raises InputError for a class or a setting that is not ours, DataError for tensors that do not fit.
    """
    stock = STOCK_CLASSES.get(str(checkpoint.config.get("model_type")))
    if stock is None:
        raise InputError(
            f"config.json has model_type={checkpoint.config.get('model_type')!r}: "
            f"weights can be read from {' and '.join(STOCK_CLASSES)}"
        )
    try:
        config = stock.read(checkpoint.config)
    except KeyError as error:
        raise DataError(f"config.json has no {error.args[0]}: it is not one of a {stock.name}") from None
    left = {name.removeprefix(stock.prefix): tensor for name, tensor in checkpoint.tensors.items()}
    ours = {name: _taken(stock, config, name, shape, left) for name, shape in _parameters(config)}
    if config.tied:
        left.pop("lm_head.weight", None)
    unknown = [name for name in left if not BUFFERS.search(name)]
    if unknown:
        raise DataError(f"the checkpoint holds {unknown[0]}, which a {stock.name} like ours does not have")
    model = GPT(config)
    model.load_state_dict(ours, strict=False)  # a tied head is the embedding
    return model


def stock_class(config: ModelConfig) -> StockClass:
    """The stock class that can express a model. Raises InputError, naming the keys, when none can."""
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
            f"{directory} holds no {Path(str(error.filename or 'model.safetensors')).name}: a checkpoint is "
            f"config.json and one model.safetensors"
        ) from None
    except (SafetensorError, ValueError) as error:
        raise DataError(f"{directory} is damaged: {error}") from None
    if not isinstance(config, dict):
        raise DataError(f"{directory / 'config.json'} is no JSON object")
    return StockCheckpoint(config=config, tensors=tensors)


# --- between our names and theirs ---------------------------------------------------------------------


def _parameters(config: ModelConfig) -> Iterator[tuple[str, torch.Size]]:
    """Our parameters and their shapes; a tied head is none."""
    with torch.device("meta"):
        model = GPT(config)
    for name, parameter in model.named_parameters():
        yield name, parameter.shape


def _theirs(stock: StockClass, ours: str) -> list[str]:
    """The class's names, without its prefix, for one parameter of ours: blocks.0.mlp.up.weight."""
    module, _, leaf = ours.rpartition(".")
    leaf = "weight" if leaf == "gain" else leaf
    if not module.startswith("blocks."):
        return [f"{name}.{leaf}" for name in stock.modules[module]]
    _, index, inside = module.split(".", 2)
    return [f"{stock.block.format(index)}{name}.{leaf}" for name in stock.block_modules[inside]]


def _named(stock: StockClass, config: ModelConfig, ours: str, tensor: Tensor) -> dict[str, Tensor]:
    """One of our tensors as the class's own, with its prefix."""
    names = _theirs(stock, ours)
    parts = torch.split(tensor, [config.d_model, config.d_kv, config.d_kv]) if len(names) == 3 else (tensor,)
    return {
        name if name.startswith("lm_head") else stock.prefix + name: part.mT
        if _turned(stock, ours, part)
        else part
        for name, part in zip(names, parts, strict=True)
    }


def _taken(
    stock: StockClass, config: ModelConfig, ours: str, shape: torch.Size, left: dict[str, Tensor]
) -> Tensor:
    """One of our tensors out of the class's own, which are taken from `left`; missing biases are zeros."""
    names = _theirs(stock, ours)
    if ours.endswith("bias") and not any(name in left for name in names):
        return torch.zeros(shape)
    missing = [name for name in names if name not in left]
    if missing:
        raise DataError(f"the checkpoint holds no {missing[0]}, which a {stock.name} has")
    tensor = torch.cat([left.pop(name) for name in names]).float()
    tensor = tensor.mT if _turned(stock, ours, tensor) else tensor
    if tensor.shape != shape:
        raise DataError(
            f"{names[0]} of the checkpoint makes shape {tuple(tensor.shape)}, config.json says {tuple(shape)}"
        )
    return tensor


def _turned(stock: StockClass, ours: str, tensor: Tensor) -> bool:
    return stock.transposed and ours.startswith("blocks.") and tensor.dim() == 2


def _without_multipliers(config: ModelConfig, tensors: Tensors) -> tuple[ModelConfig, Tensors]:
    """The same function without output_scale and attention_scale: the last norm and the queries take them."""
    last = {"norm.gain", "norm.bias"}
    folded = {name: t * config.output_scale if name in last else t for name, t in tensors.items()}
    for name in folded:
        if ".attention.qkv." in name and config.attention_scale != 1:
            query, rest = torch.split(folded[name], [config.d_model, 2 * config.d_kv])
            folded[name] = torch.cat((query * config.attention_scale, rest))
    return replace(config, output_scale=1.0, attention_scale=1.0), folded


def _unscaled(config: ModelConfig, tensors: Tensors) -> tuple[ModelConfig, Tensors]:
    """The same function of the tokens, with the embedding's output multiplied by 1 instead of s.

    Untied, the tables themselves are multiplied. Tied, the whole residual stream is divided by s instead:
    what writes to it is divided by s, and every norm's eps by s², so that the norms' outputs stay.
    """
    scale = config.input_scale
    plain = replace(config, embedding_scale=config.d_model**-0.5)
    if not config.tied:
        tables = {"embedding.weight", "positions.weight"}
        return plain, {name: t * scale if name in tables else t for name, t in tensors.items()}
    writers = re.compile(r"\.(attention\.out|mlp\.down)\.")
    divided = {name: t / scale if writers.search(name) else t for name, t in tensors.items()}
    return replace(plain, norm_eps=config.norm_eps / scale**2), divided
