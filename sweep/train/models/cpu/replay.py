"""A call recorded once and carried out again: its operations alone, on memory of their own.

Between two operations of a small model, Python and torch are busy with calling functions, making views and
asking for memory. None of that differs from one call to the next while shapes stay the same. A `Replay` holds
what is left, a list of operations on tensors that are there already, as a CUDA graph does on a GPU. They are
the operations recorded, in their order, so what they compute is the same to the bit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor

from sweep.train.models.cpu.recorder import EMPTY, Piece, Recorder, Step, Use, leaves, mapped

ALIGNMENT = 64
"""Of every piece of memory, in bytes, as torch's own: how a kernel works may depend on it."""

aten = torch.ops.aten
_COPIES = frozenset({aten.clone.default, aten._to_copy.default})


class Recording:
    """A call that was carried out once, and its operations. `result` is what it gave.

    What the call reads or writes besides what it makes itself must stay where it is, such as parameters and
    the gradients that they hold; it must not read values by `numpy` or `tolist`, which is not seen.
    """

    def __init__(self, call: Callable[[Tensor], Tensor], argument: Tensor) -> None:
        self._argument = argument.clone()
        with torch.no_grad(), Recorder() as self._recorder:
            self.result = call(self._argument).clone()
        self._end = self._recorder.use(self.result)

    def replay(self, workspace: Workspace) -> Replay | None:
        """What carries the call out again; None for a call that can't be repeated as a list of operations.

        It may have looked at a value, and gone on by it; have left something that is still there, which a
        replay would not make again; have taken, within a list or by name, what an operation gave in memory of
        its own. Raises what torch raises where there is no room.
        """
        steps, pieces = self._recorder.steps, self._recorder.pieces
        pieces[self._end.piece].last = len(steps)
        if not self._recorder.is_repeatable or self._recorder.left(self.result):
            return None
        placed = {n: piece for n, piece in enumerate(pieces) if _can_be_given_memory(steps[piece.first])}
        if any(use.piece not in placed for step in steps for use in _fixed(step, pieces)):
            return None
        offsets, n_bytes = plan_memory(placed)
        workspace.hold(n_bytes)
        room = _Room(pieces, offsets, workspace)
        operations = [room.operation(n, step) for n, step in enumerate(steps) if step.function not in EMPTY]
        return Replay(self._argument, operations, room.tensor(self._end), workspace, n_bytes)


class Workspace:
    """Memory for replays that are carried out one at a time; between two of them it may be given back."""

    def __init__(self) -> None:
        self.storage = torch.UntypedStorage(0)  # type: ignore[no-untyped-call]

    def hold(self, n_bytes: int) -> None:
        """Have at least so much; raises what torch raises where there is no room."""
        if self.storage.nbytes() < n_bytes:
            self.free()  # else what is there would be copied
            self.storage.resize_(n_bytes)

    def free(self) -> None:
        """Give it back."""
        self.storage.resize_(0)


class Replay:
    """A recorded call for other arguments of the shape it had; it works on `n_bytes` of a workspace."""

    def __init__(
        self,
        argument: Tensor,
        operations: Sequence[Callable[[], object]],
        result: Tensor,
        workspace: Workspace,
        n_bytes: int,
    ) -> None:
        self._argument, self._operations, self._result = argument, operations, result
        self._workspace, self.n_bytes = workspace, n_bytes

    @torch.no_grad()
    def __call__(self, argument: Tensor) -> Tensor:
        """The call's result, and whatever else it does."""
        self._workspace.hold(self.n_bytes)
        self._argument.copy_(argument)
        try:
            for operation in self._operations:
                operation()
        except BaseException:
            for operation in self._operations:
                if isinstance(operation, _Afloat):
                    operation.drop()
            raise
        return self._result.clone()  # the next time writes over the original


def _fixed(step: Step, pieces: Sequence[Piece]) -> Iterator[Use]:
    """The arguments that can't be put in anew each time: nested ones, and those looked at as another type."""
    plain = [isinstance(arg, Use) and arg.dtype == pieces[arg.piece].whole.dtype for arg in step.args]
    others = [arg for arg, is_plain in zip(step.args, plain, strict=True) if not is_plain]
    return leaves((others, step.kwargs), Use)


class _Room:
    """Where a call's tensors are: placed in a workspace, or afloat, where an operation takes its own memory.

    Not every operation can be given memory for its results. Theirs are held until nothing uses them any more,
    and put in where an operation takes them.
    """

    def __init__(self, pieces: Sequence[Piece], offsets: Mapping[int, int], workspace: Workspace) -> None:
        self.pieces, self.offsets, self.workspace = pieces, offsets, workspace
        self.held: list[Tensor | None] = [None] * len(pieces)  # by piece, those afloat
        self._tensors: dict[Use, Tensor] = {}

    def tensor(self, use: Use) -> Tensor:
        """One that is placed."""
        if use not in self._tensors:
            start = self.offsets[use.piece] // use.dtype.itemsize + use.offset
            tensor = torch.empty(0, dtype=use.dtype)
            tensor.set_(self.workspace.storage, start, use.size, use.stride)
            self._tensors[use] = tensor
        return self._tensors[use]

    def operation(self, number: int, step: Step) -> Callable[[], object]:
        """A step as a call without arguments."""
        function, args, kwargs = _given_memory(step)
        taken, made = self._without_place(args), self._without_place(step.made)
        args = tuple(None if self._floats(arg) else arg for arg in args)
        args, kwargs = mapped((args, kwargs), Use, self.tensor)
        if not (taken or made):
            return functools.partial(function, *args, **kwargs)
        used = {use.piece for _, use in taken + made}
        return _Afloat(
            function=functools.partial(function, **kwargs),
            args=list(args),
            taken=tuple((position, use.piece, self._view(use)) for position, use in taken),
            made=tuple((index if len(step.made) > 1 else None, use.piece) for index, use in made),
            ends=tuple(piece for piece in used if self.pieces[piece].last == number),
            held=self.held,
        )

    def _floats(self, leaf: object) -> TypeGuard[Use]:
        return isinstance(leaf, Use) and leaf.piece not in self.offsets

    def _without_place(self, leaves: tuple[object, ...]) -> list[tuple[int, Use]]:
        """Those afloat, and where they stand."""
        return [(index, leaf) for index, leaf in enumerate(leaves) if self._floats(leaf)]

    def _view(self, use: Use) -> tuple[tuple[int, ...], tuple[int, ...], int] | None:
        """How to look at a tensor that floats; None for as it was made."""
        return None if use == self.pieces[use.piece].whole else (use.size, use.stride, use.offset)


@dataclass(slots=True)
class _Afloat:
    """An operation that takes or makes tensors that float."""

    function: Callable[..., Any]
    args: list[Any]
    taken: tuple[tuple[int, int, tuple[tuple[int, ...], tuple[int, ...], int] | None], ...]
    made: tuple[tuple[int | None, int], ...]  # which of the results, where there are several, and its piece
    ends: tuple[int, ...]  # pieces that nothing uses after this
    held: list[Tensor | None]

    def drop(self) -> None:
        """Forget what it holds: after an operation that failed."""
        for position, piece, _ in self.taken:
            self.args[position] = self.held[piece] = None
        for _, piece in self.made:
            self.held[piece] = None

    def __call__(self) -> None:
        held, args = self.held, self.args
        for position, piece, view in self.taken:
            whole = held[piece]
            args[position] = whole if view is None else torch.as_strided(whole, *view)  # type: ignore[arg-type]
        result = self.function(*args)
        for index, piece in self.made:
            held[piece] = result if index is None else result[index]
        for position, _, _ in self.taken:
            args[position] = None
        for piece in self.ends:
            held[piece] = None


def _can_be_given_memory(step: Step) -> bool:
    return step.function in EMPTY or step.function in _COPIES or _out_variant(step.function) is not None


def _given_memory(step: Step) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """The function that computes a step's results where they belong, and its arguments."""
    if step.function in _COPIES:
        return aten.copy_.default, (step.made[0], step.args[0]), {}
    variant = _out_variant(step.function)
    if variant is None:
        return step.function, step.args, step.kwargs
    function, names = variant
    return function, step.args, step.kwargs | dict(zip(names, step.made, strict=True))


@functools.cache
def _out_variant(function: Any) -> tuple[Any, tuple[str, ...]] | None:
    """The overload of an operation that computes into given tensors, and their names.

    Not one that torch generated, which computes elsewhere and copies.
    """
    packet, wanted = function.overloadpacket, [(a.name, str(a.type)) for a in function._schema.arguments]
    for overload in packet.overloads():
        variant = getattr(packet, overload)
        arguments = variant._schema.arguments
        outs = tuple(a.name for a in arguments if a.is_out)
        others = [(a.name, str(a.type)) for a in arguments if not a.is_out]
        if outs and others == wanted and torch.Tag.generated not in variant.tags:
            return variant, outs
    return None


def plan_memory(pieces: Mapping[int, Piece]) -> tuple[dict[int, int], int]:
    """Where each piece begins, and the bytes of all: what is needed at the same time does not overlap.

    Pieces in the order in which they are asked for, each in the smallest gap that holds it.
    """
    offsets: dict[int, int] = {}
    taken: list[tuple[int, int, int]] = []  # begin, end, last step; in order, those needed
    total = 0
    for number, piece in pieces.items():
        taken = sorted(block for block in taken if block[2] >= piece.first)
        size = -(-piece.n_bytes // ALIGNMENT) * ALIGNMENT
        start = _smallest_gap(taken, size)
        offsets[number] = start
        taken.append((start, start + size, piece.last))
        total = max(total, start + size)
    return offsets, total


def _smallest_gap(taken: Sequence[tuple[int, int, int]], size: int) -> int:
    """Where the smallest gap between blocks that holds `size` begins, or the end of all."""
    gaps, end = [], 0
    for start, stop, _ in taken:
        if start - end >= size:
            gaps.append((start - end, end))
        end = max(end, stop)
    return min(gaps)[1] if gaps else end
