"""RODEO: leave-one-out REINFORCE whose samples and baselines carry discrete Stein control variates.

    g_l = 1/S Σ_s { [f_s − mean_{r≠s}(f_r + α (A h_r)(z_r))] (z_{s,l} − p_l) + β (A h̃_s ∇_l log q)(z_s) }
    h_s(y) = mean_{r≠s} H(f_r, ∇f(z_r)ᵀ(y − z_r)),    H(u, v) = u + v + r_ψ(u, v),    h̃ likewise with r̃_ψ
    (A h)(z) = Σ_l { E_{y_l ~ q_l} h(y_l, z_{−l}) − h(z) }

A is the Stein operator of Gibbs sampling: redrawing one site of z ~ q leaves its distribution q, so E (A h)(z) = 0 for
every h that does not depend on z. h_s is made of the *other* samples; using its own would bias the estimate. h is a
function of two numbers per sample, so it needs no evaluation of f at the Σ K neighbours of a sample. r_ψ and r̃_ψ are
the two outputs of a network with one LeakyReLU layer, multiplied by a scale that starts at 0. α, β and ψ are trained by
gradient descent on E‖g‖². At α = β = 0 this is leave-one-out REINFORCE. (The paper's A has a factor 1/L, which is
part of α and β here. Its H is only a network, and the authors' code starts with α = 0.)
Cost: S evaluations, in one call, at hard samples. Unbiased.
Shi, Zhou, Hwang, Titsias, Mackey 2022, arXiv:2202.09497.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from estimators.algebra import norm_sq, probabilities
from estimators.base import Estimate, SeveralSamples
from estimators.noise import race
from estimators.objective import Objective, Sites
from estimators.options import Count, Several
from estimators.sitewise import Stacked
from estimators.slopes import slopes_at


class Rodeo(SeveralSamples):
    """RODEO.

    Args:
        sizes: K_l of each site.
        samples: S ≥ 2, the leading dimension of the single call to the objective; weights train on their mean.
        alpha: the initial α, the coefficient in the baselines.
        beta: the initial β, the coefficient for the samples themselves.
        hidden: width of the network.
    """

    unbiased = True

    def __init__(
        self, sizes: Sequence[int], *, samples: Several = 2, alpha: float = 0.5, beta: float = 0.0, hidden: Count = 10
    ) -> None:
        super().__init__(sizes, samples=samples)
        self.alpha = nn.Parameter(torch.tensor(float(alpha)))
        self.beta = nn.Parameter(torch.tensor(float(beta)))
        self.scale = nn.Parameter(torch.zeros(()))
        generator = torch.Generator(self.scale.device).manual_seed(0)
        self.inner_weight = nn.Parameter(torch.randn(hidden, 2, generator=generator, device=self.scale.device))
        self.outer_weight = nn.Parameter(
            torch.randn(2, hidden, generator=generator, device=self.scale.device) / hidden**0.5
        )

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        n = self.evaluations
        p = probabilities(logits)
        sample = race(p, noise).corners
        loss, slopes = slopes_at(self, objective, sample, 1 / n)
        at = torch.arange(n, device=loss.device)
        others = (at.unsqueeze(1) + at[1:]) % n  # (S, S − 1), r of each s
        # ∇f(z_r)ᵀ(z_s − z_r), and the same with one site of z_s changed; s first, then r
        here = loss.new_zeros(())
        changed = []  # ∇_l f(z_r)ᵀ(y − z_{s,l}) of every category y
        for z, q, v in zip(sample.stacks, p.stacks, slopes.stacks, strict=True):
            slope = torch.where(q > 0, v, 0)  # a forbidden category may have no slope
            own = (slope * z).sum(-1, keepdim=True)[others]
            slope = slope[others]
            there = (slope * z.unsqueeze(1)).sum(-1, keepdim=True)
            here = here + (there - own).sum((-2, -1))
            changed.append(slope - there)
        near, means, total = [], [], loss.new_zeros(())
        for z, q, change in zip(sample.stacks, p.stacks, changed, strict=True):
            y = self._mean_of_others(
                loss[others][..., None, None], here[..., None, None] + change
            )  # (2, S, *rows, n, K)
            mean = (q * y).sum(-1, keepdim=True)
            total = total + (mean.squeeze(-1) - (z * y).sum(-1)).sum(-1)  # (A h_s)(z_s), (A h̃_s)(z_s)
            near.append(y[1])
            means.append(mean[1])
        value = loss + self.alpha * total[0]
        weight = ((loss - (value.sum(0) - value) / (n - 1)) / n)[..., None, None]
        stein = total[1][..., None, None]
        grads = []
        for z, q, y, m in zip(sample.stacks, p.stacks, near, means, strict=True):
            score = z - q
            grads.append((weight * score + self.beta / n * ((stein - m) * score + q * (y - m))).sum(0))
        found = Stacked(grads, sample.layout)
        if self.training:
            self._fit(norm_sq(found))
        return Estimate(loss.mean(0), found)

    def _mean_of_others(self, u: Tensor, v: Tensor) -> Tensor:
        """mean_r H(u_{s,r}, v_{s,r}) and the same of H̃: `(2, S, …)` from `(S, S − 1, …)`; u broadcasts."""
        seen = torch.stack([u.expand_as(v), v])  # features first: the matrix products then take half the time
        inner, outer = self.inner_weight.to(seen.dtype), self.outer_weight.to(seen.dtype)
        learned = outer @ nn.functional.leaky_relu(inner @ seen.flatten(1), 0.3)
        return (seen.sum(0) + (self.scale * learned).view(2, *v.shape)).mean(2)
