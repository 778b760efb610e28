"""Loss parity: training steps of every architecture against a plain implementation written from the formulas.

It shares no code with the package: matrix products and elementwise operations only, attention with an
explicit mask and softmax, norms by definition, the loss as log-sum-exp, explicit clipping, AdamW and cosine;
only gradients come from autograd.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sweep.records import Placement
from sweep.train.models.gpt import GPT
from sweep.train.step import TrainingStep
from tests.architectures import architectures, label
from tests.configs import tiny_run

N_STEPS, BATCH, REL = 12, 4, 1e-5
MODELS = architectures(vocab_size=53, seq_len=12, d_model=16, d_ff=24, n_layers=2)
RUN = tiny_run(batch_tokens=BATCH * 12, n_tokens=BATCH * 12 * N_STEPS)
# epsilon is not negligible here, else Adam turns the rounding of a gradient near 0 into a whole step
RUN = replace(
    RUN, optimizer=replace(RUN.optimizer, eps=1e-3), schedule=replace(RUN.schedule, final_lr_frac=0.1)
)
TOKENS = np.random.default_rng(0).integers(0, 53, (N_STEPS, BATCH, 13))


class Plain:
    """The decoder as formulas over a dict of weights `w`."""

    def __init__(self, c, w):
        self.c, self.w = c, w

    def norm(self, x, name):
        if self.c.norm == "rms":  # Zhang & Sennrich 2019, equation 4
            return x / (x.pow(2).mean(-1, keepdim=True) + self.c.norm_eps).sqrt() * self.w[f"{name}.gain"]
        centred = x - x.mean(-1, keepdim=True)  # Ba et al. 2016, equations 3 and 4
        x = centred / (centred.pow(2).mean(-1, keepdim=True) + self.c.norm_eps).sqrt()
        return x * self.w[f"{name}.gain"] + self.w.get(f"{name}.bias", 0.0)

    def linear(self, x, name):
        return x @ self.w[f"{name}.weight"].T + self.w.get(f"{name}.bias", 0.0)

    def turned(self, x):
        """Rotary positions: pair (i, i + half) as a complex number, turned by position times frequency."""
        half = x.size(-1) // 2
        frequency = self.c.rope_base ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = torch.arange(x.size(-2), dtype=torch.float64)[:, None] * frequency
        z = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angle), angle).to(
            torch.complex64
        )
        return torch.cat((z.real, z.imag), -1)

    def attention(self, x, name):
        c, (B, T, d) = self.c, x.shape
        qkv = self.linear(x, f"{name}.qkv")
        width = c.n_kv_heads * (d // c.n_heads)
        q, k, v = qkv[..., :d], qkv[..., d : d + width], qkv[..., d + width :]
        q, k, v = (t.reshape(B, T, -1, d // c.n_heads).permute(0, 2, 1, 3) for t in (q, k, v))
        if c.qk_norm:  # without a gain of its own; F.rms_norm's default epsilon is that of fp32
            eps = 2.0**-23
            q, k = (t / (t.pow(2).mean(-1, keepdim=True) + eps).sqrt() * c.qk_gain for t in (q, k))
        if c.positions == "rope":
            q, k = self.turned(q), self.turned(k)
        heads = []
        for h in range(c.n_heads):
            g = h * c.n_kv_heads // c.n_heads
            scores = q[:, h] @ k[:, g].transpose(1, 2) / math.sqrt(d // c.n_heads)
            scores = scores - 1e30 * torch.ones(T, T).triu(1)
            weights = (scores - scores.max(-1, keepdim=True).values).exp()
            heads.append(weights / weights.sum(-1, keepdim=True) @ v[:, g])
        return self.linear(torch.cat(heads, -1), f"{name}.out")

    def mlp(self, x, name):
        up = self.linear(x, f"{name}.up")
        if self.c.activation == "relu2":
            inner = torch.where(up > 0, up, torch.zeros(())) ** 2
        elif self.c.activation == "gelu":  # Hendrycks & Gimpel 2016, section 2
            inner = up / 2 * (1 + ((up + 0.044715 * up**3) * math.sqrt(2 / math.pi)).tanh())
        else:
            gate = self.linear(x, f"{name}.gate")
            inner = gate / (1 + (-gate).exp()) * up
        return self.linear(inner, f"{name}.down")

    def loss(self, tokens):
        c, w, inputs, targets = self.c, self.w, tokens[:, :-1], tokens[:, 1:]
        x = w["embedding.weight"][inputs]
        if c.positions == "learned":
            x = x + w["positions.weight"][: inputs.size(1)]
        x = x * c.embedding_scale * math.sqrt(c.d_model)
        for i in range(c.n_layers):
            x = x + self.attention(self.norm(x, f"blocks.{i}.attention_norm"), f"blocks.{i}.attention")
            x = x + self.mlp(self.norm(x, f"blocks.{i}.mlp_norm"), f"blocks.{i}.mlp")
        head = w["embedding.weight" if c.tied else "head.weight"]
        logits = self.norm(x, "norm") @ head.T
        top = logits.max(-1, keepdim=True).values
        log_z = top[..., 0] + (logits - top).exp().sum(-1).log()
        return (log_z - logits.gather(-1, targets[..., None])[..., 0]).mean()


def plain_losses(model, weights):
    """Twelve steps of AdamW (Loshchilov & Hutter 2019, algorithm 2), decay on what has two dimensions."""
    o, s = RUN.optimizer, RUN.schedule
    w = {name: tensor.clone().requires_grad_() for name, tensor in weights.items()}
    m, v = ({name: torch.zeros_like(t) for name, t in w.items()} for _ in range(2))
    losses = []
    for step in range(N_STEPS):
        loss = Plain(model, w).loss(torch.from_numpy(TOKENS[step]))
        gradients = dict(zip(w, torch.autograd.grad(loss, list(w.values())), strict=True))
        norm = math.sqrt(sum(float(g.double().pow(2).sum()) for g in gradients.values()))
        clip = min(1.0, o.grad_clip / (norm + 1e-6))
        done = (step - s.warmup_steps) / (N_STEPS - s.warmup_steps)
        frac = s.final_lr_frac + (1 - s.final_lr_frac) * (1 + math.cos(math.pi * done)) / 2
        lr = o.lr_peak * ((step + 1) / s.warmup_steps if step < s.warmup_steps else frac)
        with torch.no_grad():
            for name, t in w.items():
                g = gradients[name] * clip
                m[name] = o.beta1 * m[name] + (1 - o.beta1) * g
                v[name] = o.beta2 * v[name] + (1 - o.beta2) * g * g
                m_hat = m[name] / (1 - o.beta1 ** (step + 1))
                v_hat = v[name] / (1 - o.beta2 ** (step + 1))
                t *= 1 - lr * o.weight_decay * (t.dim() > 1)
                t -= lr * m_hat / (v_hat.sqrt() + o.eps)
        losses.append(loss.item())
    return losses


def _case(number, model):
    """Run every fifth model by default, which covers every value of every choice; all in the long form."""
    return pytest.param(model, id=label(model), marks=[pytest.mark.long] if number % 5 else [])


@pytest.mark.parametrize("model", [_case(number, model) for number, model in enumerate(MODELS)])
def test_losses_are_those_of_a_plain_implementation(tmp_path, model):
    run = replace(RUN, model=model)
    ours = GPT(model)
    ours.initialise(torch.Generator().manual_seed(3))
    weights = {name: p.detach().clone() for name, p in ours.named_parameters()}
    if model.bias:  # biases start at 0, where mistakes would hide for a step
        for name in weights:
            if name.endswith("bias"):
                weights[name] += 0.1 * torch.randn(
                    weights[name].shape, generator=torch.Generator().manual_seed(4)
                )
        ours.load_state_dict(weights, strict=False)
    place = Placement(
        data_dir=tmp_path, device="cpu", n_threads=1, micro_batch_size=3, checkpoint_interval_s=1e9
    )
    step = TrainingStep(ours, run, place, lambda step, start, stop: TOKENS[step, start:stop])
    losses = [step(number).item() for number in range(N_STEPS)]
    assert losses == pytest.approx(plain_losses(model, weights), rel=REL)
    assert losses[-1] != losses[0]
