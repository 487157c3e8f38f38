"""What each biased estimator claims instead: the objective, the limit or the relative for which it is exact."""

from __future__ import annotations

import itertools
import math

import oracles
import pytest
import torch
from oracles import LOGITS, Joint, Sites, enumerate_expectation, logits_like, run, same, seeded, sizes_of
from torch import Tensor

import estimators

RESOLUTION = 0.15


class Quadratic(Joint):
    """f(x) = 1 + Σ_l (a_lᵀ x_l + x_lᵀ B_l x_l) + w Σ_l c_lᵀ x_l: quadratic in each site, additive over them."""

    def __init__(self, sizes: tuple[int, ...], rows: tuple[int, ...] = (), dtype: torch.dtype = torch.float64) -> None:
        super().__init__(sizes, rows, dtype)
        generator = seeded(7)
        self.linear = [torch.randn(k, generator=generator, dtype=torch.float64).to(dtype) for k in sizes]
        self.square = [torch.randn(k, k, generator=generator, dtype=torch.float64).to(dtype) for k in sizes]
        self.tilt = [torch.randn(k, generator=generator, dtype=torch.float64).to(dtype) for k in sizes]

    def forward(self, sample: Sites) -> Tensor:
        value = sum(
            (x @ a + ((x @ b) * x).sum(-1) for x, a, b in zip(sample, self.linear, self.square, strict=True)),
            torch.zeros((), dtype=sample[0].dtype),
        )
        return 1 + value + self.weight * sum(x @ c for x, c in zip(sample, self.tilt, strict=True))


@pytest.mark.parametrize("space", LOGITS)
def test_reinmax_is_exact_on_quadratic_objectives(space: str) -> None:
    estimator = estimators.get("reinmax", sizes=sizes_of(LOGITS[space]))
    assert oracles.check_unbiased(estimator, LOGITS[space], Quadratic) < RESOLUTION


def test_straight_through_is_not_exact_there() -> None:
    """So that the test above can tell the second order from the first."""
    logits = LOGITS["joint"]
    with pytest.raises(AssertionError, match="expected"):
        oracles.check_unbiased(estimators.get("straight_through", sizes=sizes_of(logits)), logits, Quadratic)


@pytest.mark.parametrize("space", ["joint", "one_site", "binary"])
@pytest.mark.parametrize("samples", [2, 5])
def test_vargrad_is_unbiased_for_the_objective_with_log_q(space: str, samples: int) -> None:
    """E of the estimate is ∂/∂φ E_q[f + log q]; f is a constant of the logits, and log q is not."""
    logits = LOGITS[space]
    sizes, rows = sizes_of(logits), 40_000
    estimator = estimators.get("vargrad", sizes=sizes, samples=samples)
    p = [torch.softmax(site, -1) for site in logits]
    of_negentropy = [torch.special.xlogy(q, q) + q * torch.special.entr(q).sum() for q in p]
    _, of_f = enumerate_expectation(Joint(sizes), logits)
    expanded = tuple(site.expand(rows, -1) for site in logits)
    _, grads = run(estimator, expanded)
    truth = [a + b for a, b in zip(of_f, of_negentropy, strict=True)]
    assert oracles.check_means(torch.cat(grads, -1), torch.cat(truth)) < RESOLUTION


def test_vargrad_is_rloo_of_the_sum() -> None:
    """On equal noise, with log q added to the objective by hand."""
    sizes = (2, 3, 4)
    logits = logits_like(sizes, (50,))
    log_q = [torch.log_softmax(site, -1) for site in logits]

    def total(sample: Sites) -> Tensor:
        return Joint(sizes, (50,))(sample) + sum((x * lq).sum(-1) for x, lq in zip(sample, log_q, strict=True))

    _, expected = run(estimators.get("rloo", sizes=sizes, samples=3), logits, total)
    _, got = run(estimators.get("vargrad", sizes=sizes, samples=3), logits)
    same(got, expected, "not RLOO", rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("space", LOGITS)
@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_gumbel_rao_has_the_mean_of_gumbel_straight_through_and_less_variance(space: str, temperature: float) -> None:
    """Both as estimates of one unknown: the difference of two means against its own standard error."""
    logits = LOGITS[space]
    expanded = tuple(site.expand(40_000, -1) for site in logits)
    found = []
    for name, options in (("gumbel_straight_through", {}), ("gumbel_rao", {"samples": 8})):
        estimator = estimators.get(name, sizes=sizes_of(logits), temperature=temperature, **options)
        found.append(torch.cat(run(estimator, expanded, seed=3)[1], -1))
    oracles.check_means(found[0] - found[1], torch.zeros(found[0].shape[-1], dtype=torch.float64))
    assert float(found[1].var(0).sum()) < 0.9 * float(found[0].var(0).sum())


def test_one_draw_of_gumbel_rao_is_distributed_as_gumbel_straight_through() -> None:
    """Not only in the mean: the second moments agree too."""
    logits = LOGITS["joint"]
    expanded = tuple(site.expand(40_000, -1) for site in logits)
    found = []
    for name, options, seed in (("gumbel_straight_through", {}, 1), ("gumbel_rao", {"samples": 1}, 2)):
        estimator = estimators.get(name, sizes=sizes_of(logits), temperature=0.5, **options)
        found.append(torch.cat(run(estimator, expanded, seed=seed)[1], -1).square())
    oracles.check_means(found[0] - found[1], torch.zeros(found[0].shape[-1], dtype=torch.float64))


@pytest.mark.parametrize("temperature", [0.4, 1.0])
def test_gumbel_straight_through_is_autograd_through_its_soft_sample(temperature: float) -> None:
    sizes = (2, 3, 4)
    logits = logits_like(sizes, (50,))
    estimator = estimators.get("gumbel_straight_through", sizes=sizes, temperature=temperature)
    noise = estimator.draw(logits, seeded())
    loss, grads = estimator.estimate(Joint(sizes, (50,)), logits, noise)
    phi = tuple(site.clone().requires_grad_() for site in logits)
    sample = []
    for site, u in zip(phi, noise, strict=True):
        soft = torch.softmax((site - torch.log(-torch.log(u))) / temperature, -1)
        hard = torch.nn.functional.one_hot(soft.argmax(-1), soft.shape[-1]).double()
        sample.append(hard + soft - soft.detach())
    value = Joint(sizes, (50,))(tuple(sample))
    same(loss, value.detach(), "another sample", rtol=1e-10)
    same(grads, torch.autograd.grad(value.sum(), phi), "another gradient", rtol=1e-5, atol=1e-7)


def test_reinmax_is_the_published_algorithm() -> None:
    """Algorithm 2 of the paper, by autograd through detached terms, at another temperature than 1 too."""
    sizes = (2, 3, 4)
    logits = logits_like(sizes, (50,))
    for t in (1.0, 1.3):
        estimator = estimators.get("reinmax", sizes=sizes, temperature=t)
        noise = estimator.draw(logits, seeded())
        _, grads = estimator.estimate(Joint(sizes, (50,)), logits, noise)
        phi = tuple(site.clone().requires_grad_() for site in logits)
        sample = []
        for site, u in zip(phi, noise, strict=True):
            index = (site - torch.log(-torch.log(u))).argmax(-1)
            hard = torch.nn.functional.one_hot(index, site.shape[-1]).double()
            first = torch.softmax(site, -1)
            middle = ((hard + torch.softmax(site / t, -1)) / 2).detach()
            middle = torch.softmax(middle.log() - site.detach() + site, -1)
            second = 2 * middle - first / 2
            sample.append(second - second.detach() + hard)
        value = Joint(sizes, (50,))(tuple(sample))
        # the temperature is an fp32 buffer
        same(grads, torch.autograd.grad(value.sum(), phi), "another gradient", rtol=1e-5, atol=1e-7)


def test_normalised_nvil_is_a_multiple_of_nvil() -> None:
    """By max(1, σ̂) of earlier steps, and by nothing else: which is why it claims nothing."""
    sizes = (2, 3, 4)
    logits = logits_like(sizes, (5,))
    plain, scaled = (estimators.get("nvil", sizes=sizes, normalise=value) for value in (False, True))
    assert plain.unbiased
    assert not scaled.unbiased
    for estimator in (plain, scaled):
        estimator.get_buffer("variance").fill_(6.25)
    _, expected = run(plain.eval(), logits)
    _, got = run(scaled.eval(), logits)
    same([2.5 * g for g in got], list(expected), "another factor", rtol=1e-9)
    scaled.get_buffer("variance").fill_(0.25)
    same(run(scaled, logits)[1], expected, "a small variance enlarges nothing", rtol=1e-9)


def test_muprop_has_no_variance_on_linear_objectives() -> None:
    """Its control variate is then the objective."""
    sizes = (2, 3, 4)
    logits = tuple(site[:1].expand(50, -1) for site in logits_like(sizes, (1,)))
    table = [torch.randn(k, generator=seeded(k), dtype=torch.float64) for k in sizes]

    def linear(sample: Sites) -> Tensor:
        return 3 + sum(x @ a for x, a in zip(sample, table, strict=True))

    _, grads = run(estimators.get("muprop", sizes=sizes), logits, linear)
    _, truth = enumerate_expectation(linear, tuple(site[0] for site in logits))
    same(list(grads), [g.expand(50, -1) for g in truth], "some variance", rtol=1e-9, atol=1e-12)


def test_double_cv_at_zero_is_rloo_and_learns_to_have_less_variance() -> None:
    sizes = (2, 3, 4)
    logits = tuple(site.expand(2_000, -1) for site in logits_like(sizes))
    estimator = estimators.get("double_cv", sizes=sizes, samples=3, alpha=0.0)
    expected = run(estimators.get("rloo", sizes=sizes, samples=3), logits)
    same(run(estimator.eval(), logits), expected, "not RLOO at α = 0", rtol=1e-9, atol=1e-12)
    optimizer = torch.optim.Adam(estimator.parameters(), lr=0.05)
    generator = seeded(4)
    estimator.train()
    for _ in range(100):
        optimizer.zero_grad()
        estimator.estimate(Joint(sizes, (2_000,)), logits, estimator.draw(logits, generator))
        optimizer.step()
    learned, before = (sum(float(g.var(0).sum()) for g in of) for of in (run(estimator.eval(), logits)[1], expected[1]))
    assert learned < 0.8 * before


@pytest.mark.parametrize("space", ["joint", "binary", "peaked"])
@pytest.mark.parametrize("samples", [2, 3, 4])
def test_unordered_sets_by_enumeration(space: str, samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly, rare sets included: every set in a row of its own, weighted by its probability."""
    logits = LOGITS[space]
    sizes = sizes_of(logits)
    log_p = [torch.log_softmax(site, -1) for site in logits]
    every = torch.tensor(list(itertools.product(*map(range, sizes))))
    p = sum(lp[every[:, i]] for i, lp in enumerate(log_p)).exp()
    possible = [n for n in range(len(every)) if p[n] > 0]
    sets = torch.tensor(list(itertools.combinations(possible, samples)))
    mass = torch.zeros(len(sets), dtype=torch.float64)
    for order in itertools.permutations(range(samples)):
        term, drawn = torch.ones_like(mass), torch.zeros_like(mass)
        for s in order:
            term = term * p[sets[:, s]] / (1 - drawn)
            drawn = drawn + p[sets[:, s]]
        mass += term
    assert float(mass.sum()) == pytest.approx(1)
    index = tuple(every[sets.T, i] for i in range(len(sizes)))
    monkeypatch.setattr("estimators.unordered._top", lambda *_: (index, p[sets.T].log()))
    estimator = estimators.get("unordered", sizes=sizes, samples=samples)
    objective = Joint(sizes, (len(sets),))
    expanded = tuple(site.expand(len(sets), -1) for site in logits)
    loss, grads = estimator.estimate(objective, expanded, estimator.draw(expanded, seeded()))
    value, truth = enumerate_expectation(Joint(sizes), logits)
    same(mass @ loss, value, "the loss", rtol=1e-9)
    same([mass @ g for g in grads], list(truth), "the gradient", rtol=1e-8, atol=1e-11)
    assert objective.weight.grad is not None
    slope = oracles.enumerate_weight_gradient(Joint(sizes), logits)
    same(mass @ objective.weight.grad, slope, "the weight gradient", rtol=1e-9)


def test_the_beam_search_draws_without_replacement() -> None:
    """How often each set comes, against its probability."""
    logits = LOGITS["binary"]
    p = torch.cartesian_prod(*(torch.softmax(site, -1) for site in logits)).prod(-1)
    rows = 100_000
    expanded = tuple(site.expand(rows, -1) for site in logits)
    estimator = estimators.get("unordered", sizes=(2, 2), samples=2)
    from estimators.unordered import _top

    index, log_p = _top(expanded, estimator.draw(expanded, seeded()), 2)
    code = index[0] * 2 + index[1]
    assert bool((code[0] != code[1]).all())
    same(log_p.exp(), p[code], "a probability of another configuration", rtol=1e-12)
    for i, j in itertools.combinations(range(4), 2):
        expected = float(p[i] * p[j] / (1 - p[i]) + p[i] * p[j] / (1 - p[j]))
        share = float((((code[0] == i) & (code[1] == j)) | ((code[0] == j) & (code[1] == i))).double().mean())
        assert abs(share - expected) < 5.5 * math.sqrt(expected * (1 - expected) / rows)  # false alarm 2e-7 in all


@pytest.mark.parametrize("of", ["reinforce", "rebar", "concrete"])
def test_an_average_has_the_mean_and_a_part_of_the_variance(of: str) -> None:
    """Of rows that share no noise: with n draws the variance of a row is that of one over n."""
    sizes, n = (2, 3, 4), 5
    logits = tuple(site.expand(20_000, -1) for site in logits_like(sizes))
    single = torch.cat(run(estimators.get(of, sizes=sizes).eval(), logits, seed=1)[1], -1)
    estimator = estimators.get("averaged", sizes=sizes, of=of, samples=n).eval()
    objective = Joint(sizes, (20_000,))
    _, grads = run(estimator, logits, objective)
    several = torch.cat(grads, -1)
    oracles.check_means(single - several, torch.zeros(single.shape[-1], dtype=torch.float64))
    # a ratio of two sample variances of 20,000: within 10 % but for heavy tails
    assert float(single.var(0).sum() / several.var(0).sum()) == pytest.approx(n, rel=0.15)
    assert objective.weight.grad is not None
    alone = Joint(sizes, (20_000,))
    run(estimators.get(of, sizes=sizes).eval(), logits, alone, seed=1)
    assert alone.weight.grad is not None
    difference = (objective.weight.grad - alone.weight.grad).unsqueeze(-1)
    oracles.check_means(difference, torch.zeros(1, dtype=torch.float64))


@pytest.mark.parametrize("name", ["carms", "disarm"])
@pytest.mark.parametrize("samples", [2, 3])
def test_rows_of_many_coins_are_corrected_coin_by_coin(name: str, samples: int) -> None:
    """Of six categories that are nearly equal, the ratio of the first coins alone is far from that of all."""
    logits = (torch.tensor([0.0, 0.1, 0.05, 0.2, 0.15, 0.1], dtype=torch.float64),)
    options = {"samples": samples} if name == "carms" else {}
    estimator = estimators.get(name, sizes=(6,), **options)
    assert oracles.check_unbiased(estimator, logits, rows=100_000) < 0.05


@pytest.mark.parametrize("name", ["rebar", "relax"])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_coupled_noise_is_the_conditional_draw_that_repeats_z(name: str, mode: str) -> None:
    """Against the independent form, given the v of the paper with which its z̃ is z; −inf included."""
    sizes = (2, 3, 4)
    logits = (
        *logits_like(sizes[:2], (50,)),
        torch.tensor([0.3, -0.2, -math.inf, 1.0], dtype=torch.float64).expand(50, 4),
    )
    options = {"relaxed_objective": True} if name == "relax" else {}
    coupled, free = (
        oracles.randomise(estimators.get(name, sizes=sizes, coupled=value, **options)).train(mode == "train")
        for value in (True, False)
    )
    u = coupled.draw(logits, seeded()).u
    v = []
    for site, drawn in zip(logits, u, strict=True):
        log_p = torch.log_softmax(site, -1)
        z = log_p - torch.log(-torch.log(drawn))
        winner = torch.nn.functional.one_hot(z.argmax(-1), site.shape[-1]).bool()
        e = torch.exp(-z.amax(-1, keepdim=True))
        other = -torch.log(drawn) - log_p.exp() * e  # p_i (e^{−z_i} − e^{−z_b})
        v.append(torch.exp(-torch.where(winner, e, other)))
    noise = type(free.draw(logits, seeded()))(u, tuple(v))
    expected = free.estimate(Joint(sizes, (50,)), logits, noise)
    got = coupled.estimate(Joint(sizes, (50,)), logits, coupled.draw(logits, seeded()))
    same(got, expected, "not the same estimate", rtol=1e-5, atol=1e-7)
    assert (coupled.evaluations, free.evaluations) == (2, 3)


def test_rodeo_at_zero_is_rloo_and_learns_to_have_less_variance() -> None:
    sizes = (2, 3, 4)
    logits = tuple(site.expand(2_000, -1) for site in logits_like(sizes))
    estimator = estimators.get("rodeo", sizes=sizes, samples=3, alpha=0.0)
    expected = run(estimators.get("rloo", sizes=sizes, samples=3), logits)
    same(run(estimator.eval(), logits), expected, "not RLOO at α = β = 0", rtol=1e-6, atol=1e-9)
    optimizer = torch.optim.Adam(estimator.parameters(), lr=0.05)
    generator = seeded(4)
    estimator.train()
    for _ in range(100):
        optimizer.zero_grad()
        estimator.estimate(Joint(sizes, (2_000,)), logits, estimator.draw(logits, generator))
        optimizer.step()
    learned, before = (sum(float(g.var(0).sum()) for g in of) for of in (run(estimator.eval(), logits)[1], expected[1]))
    assert learned < 0.8 * before


def test_rodeo_of_linear_surrogates_is_that_of_double_cv_in_its_baselines() -> None:
    """With h linear and β = 0, (A h)(z) = −∇h·(z − p): the correction of `double_cv` in the baselines, but not of f."""
    sizes = (2, 3, 4)
    logits = logits_like(sizes, (50,))
    estimator = estimators.get("rodeo", sizes=sizes, samples=2, alpha=1.0)
    noise = estimator.draw(logits, seeded())
    _, got = estimator.estimate(Joint(sizes, (50,)), logits, noise)
    p = [torch.softmax(site, -1) for site in logits]
    index = [(site - torch.log(-torch.log(u))).argmax(-1) for site, u in zip(logits, noise, strict=True)]
    z = [torch.nn.functional.one_hot(i, k).double() for i, k in zip(index, sizes, strict=True)]
    leaves = [x.clone().requires_grad_() for x in z]
    f = Joint(sizes, (50,))(tuple(leaves))
    slopes = torch.autograd.grad(f.sum(), leaves)
    f = f.detach()
    b = sum((v.flip(0) * (x - q)).sum(-1) for v, x, q in zip(slopes, z, p, strict=True))  # the slope at the other
    value = f - b
    expected = [((f - value.flip(0)).unsqueeze(-1) * (x - q)).mean(0) for x, q in zip(z, p, strict=True)]
    same(list(got), expected, "another correction", rtol=1e-6, atol=1e-9)


def test_tempered_straight_through_is_autograd_through_its_softmax() -> None:
    sizes = (2, 3, 4)
    logits = logits_like(sizes, (50,))
    estimator = estimators.get("straight_through", sizes=sizes, temperature=0.6, forward_temperature=1.7)
    noise = estimator.draw(logits, seeded())
    loss, grads = estimator.estimate(Joint(sizes, (50,)), logits, noise)
    phi = tuple(site.clone().requires_grad_() for site in logits)
    sample = []
    for site, u in zip(phi, noise, strict=True):
        index = (site.detach() / 1.7 - torch.log(-torch.log(u))).argmax(-1)
        soft = torch.softmax(site / 0.6, -1)
        sample.append(torch.nn.functional.one_hot(index, site.shape[-1]).double() + soft - soft.detach())
    value = Joint(sizes, (50,))(tuple(sample))
    same(loss, value.detach(), "another sample", rtol=1e-10)
    same(grads, torch.autograd.grad(value.sum(), phi), "another gradient", rtol=1e-5, atol=1e-7)


def test_muprop_subtracts_what_the_expansion_leaves_in_the_mean() -> None:
    """f(p) is no mean of f: without its baseline the variance follows the difference."""
    sizes = (3, 2)
    logits = tuple(site.expand(4_000, -1) for site in logits_like(sizes))

    def f(sample: Sites) -> Tensor:
        return 10 * sum(x.square().sum(-1) for x in sample) + sample[0][..., 0] * sample[1][..., 1]

    plain = estimators.get("muprop", sizes=sizes, baseline="none")
    centred = estimators.get("muprop", sizes=sizes)
    for seed in range(50):
        run(centred.train(), logits, f, seed)
    without, having = (sum(float(g.var(0).sum()) for g in run(e.eval(), logits, f)[1]) for e in (plain, centred))
    assert having < 0.25 * without


def test_unordered_sets_keep_what_one_dominant_category_leaves() -> None:
    """log p of the likeliest is −(1 − p): the ratio of what is left to itself is not lost where p rounds to 1."""
    for gap in (10.0, 38.0, 60.0):
        logits = (torch.tensor([0.0, -gap, -gap, -gap, -gap], dtype=torch.float64).expand(500, 5),)
        estimator = estimators.get("unordered", sizes=(5,), samples=3)
        _, (grad,) = estimator.estimate(lambda s: s[0][..., 0], logits, estimator.draw(logits, seeded()))
        p = math.exp(-gap)
        truth = 4 * p / (1 + 4 * p) ** 2  # ∂p_0/∂φ_0 = p_0 (1 − p_0)
        assert float(grad[:, 0].mean()) == pytest.approx(truth, rel=1e-6, abs=0)


def test_normalised_nvil_divides_by_a_deviation_and_not_by_the_mean_of_f() -> None:
    sizes = (2, 3, 4)
    logits = logits_like(sizes, (64,))
    inner = Joint(sizes, (64,))
    found = []
    for constant in (0.0, 1000.0):
        estimator = estimators.get("nvil", sizes=sizes, normalise=True).train()
        for seed in range(5):
            run(estimator, logits, lambda sample, c=constant: inner(sample) + c, seed)
        found.append(float(estimator.get_buffer("variance")))
    assert found[1] == pytest.approx(found[0], rel=1e-3)
