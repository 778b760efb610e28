"""What a call asks of torch, noted below autograd while it is carried out: operations and memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
EMPTY = frozenset(
    {
        aten.empty.memory_format,
        aten.empty_like.default,
        aten.empty_strided.default,
        aten.new_empty.default,
        aten.new_empty_strided.default,
    }
)
"""They give memory that holds nothing yet."""

_TURNS = frozenset(  # only how a tensor is looked at, which is noted with every use
    {
        aten.unsqueeze_.default,
        aten.squeeze_.default,
        aten.squeeze_.dim,
        aten.t_.default,
        aten.transpose_.default,
    }
)
_CONSTANTS = frozenset({aten.lift_fresh.default, aten.lift_fresh_copy.default})
_BY_VALUE = (torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output)

Leaf = TypeVar("Leaf")


@dataclass(frozen=True, slots=True)
class Use:
    """A tensor whose memory the call asked for: which piece it was, and how it is looked at."""

    piece: int
    dtype: torch.dtype
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int  # in elements


@dataclass(slots=True)
class Piece:
    """Memory that was asked for once: in which step, and in which it was used last."""

    n_bytes: int
    first: int
    last: int
    whole: Use


@dataclass(slots=True)
class Step:
    """One operation. Tensors of the call are noted as `Use`, others are there themselves."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    made: tuple[Use | None, ...]  # its results whose memory it asked for


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within, operations are carried out and noted, but views, of which nothing is to be repeated."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[Step] = []
        self.pieces: list[Piece] = []
        self.is_repeatable = True  # neither a value was looked at, nor was anything done that can't be noted
        self._known: WeakKeyDictionary[torch.UntypedStorage, int] = WeakKeyDictionary()  # of those there are

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: torch would load torch._dynamo, some eight hundred modules, to keep it away from here."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self.is_repeatable &= func not in _CONSTANTS and not any(tag in func.tags for tag in _BY_VALUE)
        given = {tensor.untyped_storage() for tensor in leaves((args, kwargs), Tensor)}
        noted_args, noted_kwargs = mapped((args, kwargs), Tensor, self._noted)
        result = func(*args, **kwargs)
        results = tuple(result) if isinstance(result, tuple | list) else (result,)
        new = [isinstance(one, Tensor) and one.untyped_storage() not in given for one in results]
        turns = torch.Tag.inplace_view in func.tags
        if turns or not (func._schema.is_mutable or any(new)):
            self.is_repeatable &= func in _TURNS or not turns
            self.is_repeatable &= all(isinstance(one, Tensor) for one in results)
            return result
        if func in EMPTY:
            noted_args, noted_kwargs = (), {}  # which say only how large
        number = len(self.steps)
        for use in leaves((noted_args, noted_kwargs), Use):
            self.pieces[use.piece].last = number
        made = tuple(
            self._new(one, number) if is_new else None for one, is_new in zip(results, new, strict=True)
        )
        self.steps.append(Step(func, noted_args, noted_kwargs, made))
        return result

    def use(self, tensor: Tensor) -> Use:
        """A tensor of the call, as it is looked at."""
        size, stride = tuple(tensor.size()), tuple(tensor.stride())
        piece, offset = self._known[tensor.untyped_storage()], int(tensor.storage_offset())
        return Use(piece, tensor.dtype, size, stride, offset)

    def left(self, result: Tensor) -> bool:
        """Whether something is still there that the call made, besides its result."""
        return any(storage is not result.untyped_storage() for storage in self._known)

    def _noted(self, tensor: Tensor) -> Use | Tensor:
        return self.use(tensor) if tensor.untyped_storage() in self._known else tensor

    def _new(self, tensor: Tensor, number: int) -> Use:
        self._known[tensor.untyped_storage()] = len(self.pieces)
        use = self.use(tensor)
        self.pieces.append(Piece(tensor.untyped_storage().nbytes(), number, number, use))
        return use


def leaves(tree: Any, kind: type[Leaf]) -> Iterator[Leaf]:
    """All of a kind in arguments, which torch gives as lists, tuples and dictionaries."""
    if isinstance(tree, kind):
        yield tree
    elif isinstance(tree, dict):
        yield from leaves(tuple(tree.values()), kind)
    elif isinstance(tree, list | tuple):
        for part in tree:
            yield from leaves(part, kind)


def mapped(tree: Any, kind: type[Leaf], function: Callable[[Leaf], object]) -> Any:
    """The same arguments with all of a kind replaced."""
    if isinstance(tree, kind):
        return function(tree)
    if isinstance(tree, dict):
        return {key: mapped(part, kind, function) for key, part in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(mapped(part, kind, function) for part in tree)
    return tree
