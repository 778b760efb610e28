"""Replays of a pass: the same bits as the pass itself, for other tokens, weights and gradients so far."""

from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st

from sweep.records import Placement
from sweep.train.cpu import CpuPasses
from sweep.train.models import gemm
from sweep.train.models.cpu import decoder
from sweep.train.models.cpu.replay import ALIGNMENT, Recording, Workspace, plan_memory
from sweep.train.models.gpt import GPT
from sweep.train.step import TrainingStep
from tests.architectures import architectures, label
from tests.configs import tiny_run
from tests.live_tensors import live_bytes

MODELS = architectures(vocab_size=53, seq_len=12, d_model=16, d_ff=24, n_layers=2)
WIDE = {  # what the small ones have not: wider heads, other activations and scales, a head in chunks
    "d 64": replace(MODELS[0], d_model=64),
    "gelu_exact": replace(MODELS[0], activation="gelu_exact", norm="layer", positions="learned", d_model=64),
    "mup": replace(MODELS[0], output_scale=0.5),
    "unscaled embedding": replace(MODELS[0], init_std=0.02),
    "chunks": replace(MODELS[0], seq_len=48, vocab_size=307),
}
LONG = [
    replace(model, seq_len=320) for model in MODELS[::48]
]  # torch's fused attention, and its backward pass


def made(config, seed=0):
    model = GPT(config)
    model.initialise(torch.Generator().manual_seed(seed))
    return model


def tokens(config, seed, n_sequences=3):
    shape = (n_sequences, config.seq_len + 1)
    return torch.randint(config.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def stepped(model, loss):
    """What a pass gave, and weights that are a little different afterwards, moved in place."""
    given = [loss.clone(), *(p.grad.clone() for p in model.parameters())]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
            parameter.grad *= 0.5
    gemm.weights_changed()
    return given


def run_of(config, precision="fp32"):
    batch_tokens = 3 * config.seq_len
    return tiny_run(
        model=config,
        precision=precision,
        parametrization="standard" if config.output_scale == 1 else "mup",
        batch_tokens=batch_tokens,
        n_tokens=40 * batch_tokens,
    )


def same(config, precision):
    """Four passes of `CpuPasses`, of which two are replays, and four of the plain function."""
    run = run_of(config, precision)
    model, plain = made(config), made(config)
    passes = CpuPasses(model, run)
    for seed in range(4):
        batch = tokens(config, seed)
        mine = stepped(model, passes.backward(batch))
        loss = decoder.add_gradients(plain, batch, n_batch_tokens=run.batch_tokens, bf16=precision == "bf16")
        its = stepped(plain, loss)
        assert all(torch.equal(a, b) for a, b in zip(mine, its, strict=True))
    (recorded,) = passes._recorded.values()
    return recorded.replay is not None


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.ci)])
@pytest.mark.parametrize("config", MODELS[::5], ids=label)  # every choice, with each of the others
def test_passes_of_every_part(config, precision):
    assert same(config, precision)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", WIDE)
def test_passes_of_other_parts(monkeypatch, name, precision):
    monkeypatch.setattr(decoder, "CPU_CHUNK_ELEMENTS", 3 * 48 * 307 // 2)
    assert same(WIDE[name], precision)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_steps_are_those_without_replays(monkeypatch, optimizer):
    """Eight sequences in parts of three, by the run's own update."""
    config = MODELS[0]
    run = tiny_run(model=config, batch_tokens=96, n_tokens=96 * 12)
    run = replace(run, optimizer=replace(run.optimizer, name=optimizer, momentum=0.9))
    where = Placement(data_dir=None, device="cpu", n_threads=1, micro_batch_size=3, checkpoint_interval_s=60)

    def trained():
        model = made(config)
        step = TrainingStep(
            model, run, where, lambda n, start, stop: tokens(config, n, 8)[start:stop].numpy()
        )
        losses = [step(n) for n in range(6)]
        return [*losses, *(p.detach().clone() for p in model.parameters())]

    replayed = trained()
    monkeypatch.setattr(CpuPasses, "backward", CpuPasses._pass)
    assert all(torch.equal(a, b) for a, b in zip(replayed, trained(), strict=True))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("config", LONG, ids=label)
def test_long_sequences_are_passes_as_they_are(config, precision):
    """What torch's fused kernel gives is joined in a list, in which nothing can be put in anew."""
    assert not same(config, precision)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
@pytest.mark.parametrize("config", MODELS[::16], ids=label)
def test_products_that_take_memory_of_their_own(monkeypatch, config):
    monkeypatch.setattr(gemm, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(gemm, "MIN_ONEDNN_MACS", 1)
    assert same(config, "fp32")


@pytest.mark.parametrize("new", [torch.zeros_like, lambda parameter: None])
def test_gradients_that_moved_are_found(new):
    config = MODELS[0]
    model = made(config)
    passes = CpuPasses(model, run_of(config))
    for seed in range(3):
        passes.backward(tokens(config, seed))
    for parameter in model.parameters():
        parameter.grad = new(parameter)
    expected = made(config)
    for seed in range(3, 7):
        passes.backward(tokens(config, seed))
        decoder.add_gradients(expected, tokens(config, seed), n_batch_tokens=36, bf16=False)
    for mine, its in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(mine.grad, its.grad)


def test_a_replay_keeps_its_memory_and_no_more():
    config = replace(MODELS[0], n_layers=4)
    model = made(config)
    passes = CpuPasses(model, run_of(config))
    passes.backward(tokens(config, 0))
    before = live_bytes()
    for seed in range(3):
        passes.backward(tokens(config, seed))
    (recorded,) = passes._recorded.values()
    n_bytes = recorded.replay.n_bytes
    own = n_bytes + tokens(config, 0).nbytes + 64  # the tokens' copy, the loss
    del recorded
    assert live_bytes() - before <= own
    passes.release()
    assert live_bytes() <= before + own - n_bytes


def test_sizes_share_memory_that_is_given_back():
    """Micro-batches of three and two sequences in turn, where somebody else wants the memory now and then."""
    config = MODELS[0]
    model, plain = made(config), made(config)
    passes = CpuPasses(model, run_of(config))
    for turn in range(12):
        batch = tokens(config, turn, n_sequences=3 - turn % 2)
        loss = passes.backward(batch)
        if turn % 5 == 4:
            passes.release()
            assert passes._workspace.storage.nbytes() == 0
        expected = decoder.add_gradients(plain, batch, n_batch_tokens=36, bf16=False)
        assert torch.equal(loss, expected)
    for mine, its in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine.grad, its.grad)
    large, small = (passes._recorded[n].replay.n_bytes for n in (3, 2))
    assert small < large == passes._workspace.storage.nbytes()


def test_an_operation_that_fails_leaves_nothing_behind(monkeypatch):
    """Memory that runs out within a replay is asked for in smaller parts next."""
    config = replace(MODELS[0], norm="layer")
    model = made(config)
    passes = CpuPasses(model, run_of(config))
    for seed in range(3):
        passes.backward(tokens(config, seed))
    before = live_bytes()
    (recorded,) = passes._recorded.values()
    operations = recorded.replay._operations
    for number in range(0, len(operations), 5):
        whole, operations[number] = operations[number], fail
        with pytest.raises(MemoryError):
            passes.backward(tokens(config, 3))
        operations[number] = whole
        assert live_bytes() == before
    plain = made(config)
    for parameter in model.parameters():
        parameter.grad.zero_()
    loss = passes.backward(tokens(config, 4))
    assert torch.equal(loss, decoder.add_gradients(plain, tokens(config, 4), n_batch_tokens=36, bf16=False))
    for mine, its in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine.grad, its.grad)


def fail():
    raise MemoryError


def doubled_unless_negative(x):
    return x * 2 if x.sum() >= 0 else x


def chosen(x):
    return x[x > 1].sum()


def as_bits(x):
    return F.layer_norm(x, x.shape).view(torch.int32) + 1


def constant(x):
    return x + torch.tensor([1.0])


kept = []


def leaves_something(x):
    kept.append(x * 2)
    return x + 1


def joined(x):
    """An operation without a way to be given memory, and one that takes its result within a list."""
    return torch.cat([F.layer_norm(x, x.shape), x])


@pytest.mark.parametrize(
    "call", [doubled_unless_negative, chosen, as_bits, constant, leaves_something, joined]
)
def test_what_has_no_replay_has_its_result(call):
    x = torch.tensor([1.0, 2.0, 4.0])
    recording = Recording(call, x)
    assert torch.equal(recording.result, call(x))
    assert recording.replay(Workspace()) is None


def written_and_viewed(x):
    """Views of views, results that are written to later, two results at once, types and constants."""
    y = (x.t() @ x).view(-1)[2:]
    y.mul_(3).add_(torch.ones_like(y))
    values, places = torch.stack([y, y.flip(0) * 2]).max(0)
    y[:1].fill_(7)
    z = torch.zeros(3, dtype=torch.float64).index_add_(0, places[:3] % 3, values[:3].double())
    return F.layer_norm(z.float(), (3,))[:2] + y.bfloat16()[:2]


def test_calls_of_many_kinds():
    x = torch.arange(6.0).view(2, 3)
    recording = Recording(written_and_viewed, x)
    replay = recording.replay(Workspace())
    for factor in (1.0, -0.3, 2.0):
        assert torch.equal(replay(x * factor), written_and_viewed(x * factor))
    assert torch.equal(recording.result, written_and_viewed(x))


class Piece(NamedTuple):
    n_bytes: int
    first: int
    last: int


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 12)), max_size=40))
def test_memory_that_is_needed_together_does_not_overlap(asked):
    """Pieces of some bytes, each needed from its turn on for some turns more."""
    pieces = {}
    for turn, (n_bytes, more) in enumerate(asked):
        pieces[turn] = Piece(n_bytes, turn, turn + more)
    offsets, total = plan_memory(pieces)
    assert set(offsets) == set(pieces)
    bounds = {n: (offsets[n], offsets[n] + piece.n_bytes) for n, piece in pieces.items()}
    for n, piece in pieces.items():
        assert offsets[n] % ALIGNMENT == 0
        assert bounds[n][1] <= total
        for other in range(n):
            if pieces[other].last >= piece.first and piece.n_bytes and pieces[other].n_bytes:
                assert bounds[other][1] <= bounds[n][0] or bounds[n][1] <= bounds[other][0]
    assert total <= sum(piece.n_bytes + ALIGNMENT for piece in pieces.values())
