"""Catalogue of published laws: constants, source, counting convention and range.

Legend: N parameters, D tokens, C training FLOPs, L loss; theta = (ln A, ln B, ln E, alpha, beta) of
L = E + A/N^alpha + B/D^beta.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.errors import InputError

FloatArray = npt.NDArray[np.float64]

PF_DAY = 8.64e19  # FLOPs: 10^15 a second for a day


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedLaw:
    """A published law in its authors' convention.

    It has `theta`, a surface; or `n_opt` and `d_opt`, each (coefficient, exponent) of C in FLOPs.
    """

    source: str
    convention: str  # what N and C count
    flops_range: tuple[float, float]  # of the runs it was fitted to
    range_source: str  # source of that range; begins with "not printed" if the paper does not print one
    rounded: bool  # True if the constants are rounded in print
    remark: str = ""
    theta: tuple[float, float, float, float, float] | None = None
    n_opt: tuple[float, float] | None = None
    d_opt: tuple[float, float] | None = None
    loss_opt: tuple[float, float] | None = None  # (Cc, alpha_C) of L = (Cc/C)^alpha_C


def _params_through(flops: float, n_params: float, a: float) -> tuple[float, float]:
    """Return (coefficient, a) of N ∝ C^a through one published row."""
    return n_params / flops**a, a


def _tokens_through(flops: float, n_params: float, a: float) -> tuple[float, float]:
    """Return (coefficient, 1 - a) of D = C/(6N) for the same row."""
    return flops**a / (6 * n_params), 1 - a


HOFFMANN_CONVENTION = "N all parameters, C = 6 N D"
HOFFMANN_RANGE = (1.4e18, 1.3e22)
HOFFMANN_POINTS = "not printed: the points of their figure 4, as read off by Besiroglu et al. 2024"

PORIAN_RANGE = (1.25e16, 2.56e19)
PORIAN_BUDGETS = "their repository: twelve budgets, 1e17 times 2^-3 to 2^8"

CATALOGUE: dict[str, PublishedLaw] = {
    "kaplan_2020": PublishedLaw(
        source="Kaplan et al. 2020, arXiv:2001.08361, table 6 and equation 1.3",
        convention="N without embeddings, C = C_min: 6 N D at batches far below the critical one",
        flops_range=(1.2e14, 1.2e21),
        range_source="not printed: the top is their largest model, 1.5e9 parameters, for 2.5e5 steps of 2^19 "
        "tokens; seven decades below it, as their abstract counts the trends",
        rounded=True,
        remark="L(N) = (8.8e13/N)^0.076 and L(D) = (5.4e13/D)^0.095 where the other does not limit; a "
        "learning-rate schedule not matched to D and small models: see porian_2024",
        n_opt=(1.3e9 / PF_DAY**0.73, 0.73),
        d_opt=(2e10 / PF_DAY**0.27, 0.27),
        loss_opt=(3.1e8 * PF_DAY, 0.050),
    ),
    "hoffmann_2022_approach_1": PublishedLaw(
        source="Hoffmann et al. 2022, arXiv:2203.15556, tables 2 and 3",
        convention=HOFFMANN_CONVENTION,
        flops_range=HOFFMANN_RANGE,
        range_source=HOFFMANN_POINTS,
        rounded=True,
        remark="the exponent .50 through the row of 67e9 parameters at 5.76e23 FLOPs",
        n_opt=_params_through(5.76e23, 67e9, 0.50),
        d_opt=_tokens_through(5.76e23, 67e9, 0.50),
    ),
    "hoffmann_2022_approach_2": PublishedLaw(
        source="Hoffmann et al. 2022, arXiv:2203.15556, tables 2 and A3",
        convention=HOFFMANN_CONVENTION,
        flops_range=(6e18, 3e21),
        range_source="section 3.2: nine FLOP counts from 6e18 to 3e21",
        rounded=True,
        remark="the exponent .49 through the row of 10e9 parameters at 1.32e22 FLOPs",
        n_opt=_params_through(1.32e22, 10e9, 0.49),
        d_opt=_tokens_through(1.32e22, 10e9, 0.49),
    ),
    "hoffmann_2022_approach_3": PublishedLaw(
        source="Hoffmann et al. 2022, arXiv:2203.15556, appendix D.3, unrounded in its LaTeX source",
        convention=HOFFMANN_CONVENTION,
        flops_range=HOFFMANN_RANGE,
        range_source=HOFFMANN_POINTS,
        rounded=False,
        remark="not the minimum of its own objective: see besiroglu_2024",
        theta=(6.0073404, 6.0179186, 0.5267228, 0.33917084, 0.2849083),
    ),
    "besiroglu_2024": PublishedLaw(
        source="Besiroglu et al. 2024, arXiv:2404.10102; the minimum on their 240 points",
        convention=HOFFMANN_CONVENTION,
        flops_range=HOFFMANN_RANGE,
        range_source="their 240 points",
        rounded=False,
        remark="the printed 482.01, 2085.43, 1.8172, .3478, .3658 are not at that minimum",
        theta=(math.log(477.8259), math.log(2143.4173), math.log(1.817218), 0.3473105, 0.3671724),
    ),
    "muennighoff_2023": PublishedLaw(
        source="Muennighoff et al. 2023, arXiv:2305.16264, appendix A; unrounded in their repository",
        convention="N all parameters, C = 6 N D, C4; R_D* = 15.387756 and R_N* = 5.309743",
        flops_range=(4.3e15, 9.3e21),
        range_source="6 N D of their 182 runs on C4",
        rounded=False,
        remark="without repetition; alpha = beta by construction",
        theta=(6.255414, 7.3049974, 0.6254804, 0.3526596, 0.3526596),
    ),
    "deepseek_2024": PublishedLaw(
        source="DeepSeek-AI 2024, arXiv:2401.02954, section 3.2, equation 4",
        convention="model scale M = non-embedding FLOPs per token, C = M D; N is given as M / 6",
        flops_range=(1e17, 3e20),
        range_source="section 3.2: eight budgets from 1e17 to 3e20",
        rounded=True,
        n_opt=(0.1715 / 6, 0.5243),
        d_opt=(5.8316, 0.4757),
    ),
    "minicpm_2024": PublishedLaw(
        source="Hu et al. 2024, arXiv:2404.06395, section 4.5, equation 3: K^2 = .01, eta = -.10 on average",
        convention="N without embeddings, C = 6 N D",
        flops_range=(9.6e16, 1.44e21),
        range_source="section 4.5: six sizes from .04e9 to 2e9 parameters, 10 to 60 tokens each",
        rounded=True,
        remark="the unit of N, D and C in K^2 is not printed: with 1e9 it gives 66 to 173 tokens a parameter "
        "over their runs, where they say 192 on average; with 1 it would give 1e4",
        n_opt=(0.1e9 / 6e18**0.45, 0.45),
        d_opt=(10e9 / 6e18**0.55, 0.55),
    ),
    "llama_3_2024": PublishedLaw(
        source="Llama Team 2024, arXiv:2407.21783, section 3.2.1: D = .29 C^.53",
        convention="N = C / (6 D)",
        flops_range=(6e18, 1e22),
        range_source="section 3.2.1: budgets from 6e18 to 1e22, models of 40M to 16B parameters",
        rounded=True,
        remark="two digits of an exponent do not reach far: at 3.8e25 FLOPs this gives 10.5e12 tokens and "
        "604e9 parameters, the paper says 16.55e12 and 402e9",
        n_opt=(1 / (6 * 0.29), 0.47),
        d_opt=(0.29, 0.53),
    ),
    "gemstones_2025": PublishedLaw(
        source="McLeish et al. 2025, arXiv:2502.06857; the minimum on their 220 points without cooldown",
        convention="N active parameters, C = 6 N D",
        flops_range=(2.9e18, 1.2e21),
        range_source="6 N D of their 220 points",
        rounded=False,
        theta=(5.361689, 15.418452, 0.762303, 0.292892, 0.712979),
    ),
    "porian_2024_as_kaplan": PublishedLaw(
        source="Porian et al. 2024, arXiv:2406.19146, figure 1, first step; unrounded in their repository",
        convention="N and C without embeddings and without the head, C = 6 N D",
        flops_range=PORIAN_RANGE,
        range_source=PORIAN_BUDGETS,
        rounded=False,
        remark="Kaplan et al. 2020 reproduced on RefinedWeb; counting the head makes it .706, a short warmup "
        ".602, cosine decay .571, tuning porian_2024",
        n_opt=(4.2319659184965657e-08, 0.8353000424913991),
        d_opt=(4152787.256480985, 0.16336684877863022),
    ),
    "porian_2024": PublishedLaw(
        source="Porian et al. 2024, arXiv:2406.19146, figure 1, last step; unrounded in their repository",
        convention="N with the head, without embeddings; C = 6 N D",
        flops_range=PORIAN_RANGE,
        range_source=PORIAN_BUDGETS,
        rounded=False,
        remark="RefinedWeb, constant learning rate, batch, rate and beta2 tuned at every size",
        n_opt=(0.11892648397493802, 0.49689507817885203),
        d_opt=(1.401425999458538, 0.5031049218211477),
    ),
}


def published(name: str) -> PublishedLaw:
    """Return the published law `name`.

    Raises:
        InputError: there is no published law of that name.
    """
    if name not in CATALOGUE:
        raise InputError(f"{name} is not the name of a published law: choose from {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def published_surface(name: str) -> FloatArray:
    """Return theta (5,) of the published surface `name`.

    Raises:
        InputError: there is no published law of that name, or it is not a surface.
    """
    law = published(name)
    if law.theta is None:
        surfaces = ", ".join(key for key, entry in CATALOGUE.items() if entry.theta is not None)
        raise InputError(f"{name} is not a loss surface L(N, D): choose from {surfaces}")
    return np.array(law.theta)
