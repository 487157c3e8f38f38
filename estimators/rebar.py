"""REBAR: the relaxed objective as the control variate of REINFORCE.

    c(z) = η f(σ_λ(z)),    σ_λ(z) = softmax(z / λ)

in the estimator of `control_variate`, with η and λ tuned to reduce the variance. Cost: 3 evaluations (one hard, two
relaxed), or 2 with coupled noise. Tuning by descent differentiates the relaxed ones twice. Unbiased.
Tucker, Mnih, Maddison, Lawson, Sohl-Dickstein 2017, arXiv:1703.07370.
"""

from __future__ import annotations

from collections.abc import Sequence

from estimators.control_variate import ControlVariate, Tuning
from estimators.options import Count, Positive


class Rebar(ControlVariate):
    """REBAR with tuned η and λ.

    Args:
        sizes: K_l of each site.
        temperature: the initial λ.
        eta: the initial η.
        coupled: use one noise for z and z̃, so that one relaxed evaluation serves both terms. Otherwise z̃ has its own.
        tuning: "descent", at every step and through second derivatives of f, or "regression", without second
            derivatives; the latter needs coupled noise. See `tuning`.
        every: with regression, λ is updated at every `every`-th step, which costs one more relaxed evaluation.
        part: n; the relaxed evaluations use the first of n parts of the data.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        temperature: Positive = 0.5,
        eta: float = 1.0,
        coupled: bool = False,
        tuning: Tuning = "descent",
        every: Count = 10,
        part: Count = 1,
    ) -> None:
        super().__init__(
            sizes,
            temperature=temperature,
            eta=eta,
            relaxed=True,
            coupled=coupled,
            tuning=tuning,
            every=every,
            part=part,
        )
