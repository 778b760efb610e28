"""Backward passes on the CPU: written out, and replayed from the third of a size on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sweep.config import RunConfig
from sweep.errors import is_out_of_memory
from sweep.train.device import return_freed_memory
from sweep.train.models.cpu import decoder
from sweep.train.models.cpu.replay import Recording, Replay, Workspace
from sweep.train.models.gemm import drop_bf16_copies
from sweep.train.models.gpt import GPT


@dataclass(frozen=True, slots=True)
class _Recorded:
    addresses: tuple[int | None, ...]  # where parameters and gradients were
    replay: Replay | None  # None where there can't be one: passes of the size go as they are


class CpuPasses:
    """One run's backward passes, for a model that `sweep.train.models.cpu.decoder.suits`.

    The first of a size goes as it is, which sets up what later ones find there; the second is recorded and
    the others are its replays, the same to the bit. Should parameters or gradients have moved, it is recorded
    anew; the parameters must be the objects they were. A pass that has no replay goes as it is each time.
    Sizes share memory, which is given back where a pass goes as it is.
    """

    def __init__(self, model: GPT, run: RunConfig) -> None:
        self.model, self.run = model, run
        self._parameters = list(model.parameters())
        self._workspace = Workspace()
        self._warm: set[int] = set()  # sequences of a micro-batch that there has been
        self._recorded: dict[int, _Recorded] = {}

    def backward(self, tokens: Tensor) -> Tensor:
        """Add the gradient of `tokens`, shape (B, T + 1), to the parameters'; its part of the mean loss."""
        n_sequences, addresses = tokens.size(0), self._addresses()
        known = self._recorded.get(n_sequences)
        if known is not None and known.replay is not None and known.addresses == addresses:
            return known.replay(tokens)
        self.release()
        is_new = known is None or known.replay is not None  # or has moved
        if is_new and n_sequences in self._warm and None not in addresses:
            return self._record(tokens)
        loss = self._pass(tokens)
        self._warm.add(n_sequences)
        return loss

    def release(self) -> None:
        """Give back the memory of the replays until the next."""
        self._workspace.free()

    def forget(self) -> None:
        """Drop the replays, and whatever they hold."""
        self.release()
        self._recorded.clear()

    def _pass(self, tokens: Tensor) -> Tensor:
        n_batch_tokens, bf16 = self.run.batch_tokens, self.run.precision == "bf16"
        return decoder.add_gradients(self.model, tokens, n_batch_tokens=n_batch_tokens, bf16=bf16)

    def _record(self, tokens: Tensor) -> Tensor:
        addresses = self._addresses()
        drop_bf16_copies(self._parameters)  # casts are part of what is recorded
        recording = Recording(self._pass, tokens)
        drop_bf16_copies(self._parameters)
        return_freed_memory()  # in pieces, of which the replay wants the whole
        replay = None
        try:
            replay = recording.replay(self._workspace)
        except (MemoryError, RuntimeError) as error:  # the pass itself had room, and so will others
            if not is_out_of_memory(error):
                raise
        self._recorded[tokens.size(0)] = _Recorded(addresses, replay)
        return recording.result

    def _addresses(self) -> tuple[int | None, ...]:
        """Of parameters and of their gradients, where there are any."""
        tensors = (t for p in self._parameters for t in (p, p.grad))
        return tuple(None if tensor is None else tensor.data_ptr() for tensor in tensors)
