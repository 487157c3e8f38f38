"""The categorical VAE, on which the papers of this field compare their estimators.

    −ELBO(x) = E_{z ~ q(z|x)} [−log p(x | z)] + KL(q(z|x) ‖ p(z)),    x ~ Bernoulli(intensity) anew at every step

L latent variables of K categories, p(z) uniform, Bernoulli pixels; encoder and decoder linear or with hidden layers.
The divergence is known exactly and is differentiated as it stands, so that an estimator sees −log p(x | z) alone, one
row per image. Losses are sums over the images of a minibatch: Adam does not see the factor, and what an estimator
learns is in nats per image, whatever the size of the minibatch.

Jang, Gu, Poole 2017, arXiv:1611.01144; Maddison, Mnih, Teh 2017, arXiv:1611.00712.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import estimators
from estimators import Estimator
from results.table import row
from suites.tasks.base import Make, Point, Sites, Task, seed_of
from suites.tasks.function import concatenated
from vmo.checkpoint import Keeper
from vmo.data import Dataset, batches, load
from vmo.train import Diverged

POINTS = {"uniform": 0.0, "mid": 0.5, "peaked": 1.0}
MEASURED = 4  # images whose logits' gradients are measured
SHOWN = 1000  # images of a point of the training curve
SAMPLES = 10  # of z per image, of the final ELBO
_MODEL = ("latents", "categories", "vae_layers", "vae_hidden")
_TRAINED = (*_MODEL, "vae_steps", "vae_lr", "batch_size", "control_lr")

_load = functools.lru_cache(maxsize=2)(load)


class Vae(nn.Module):
    """Encoder and decoder.

    Args:
        mean: intensities `(pixels,)`, subtracted from what the encoder sees and the first guess of the decoder.
        latents, categories: L and K.
        layers, hidden: hidden layers of each network, and their width.
    """

    mean: Tensor

    def __init__(self, mean: Tensor, latents: int, categories: int, layers: int, hidden: int) -> None:
        super().__init__()
        self.shape = (latents, categories)
        pixels, code = len(mean), latents * categories
        self.register_buffer("mean", mean)
        self.encoder = _mlp([pixels, *[hidden] * layers, code])
        self.decoder = _mlp([code, *[hidden] * layers, pixels])
        last = self.decoder[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.bias.copy_(torch.logit(mean, 1e-3))

    def logits(self, x: Tensor) -> Tensor:
        """`(B, L, K)` of binary images `(B, pixels)`."""
        code: Tensor = self.encoder(x - self.mean)
        return code.unflatten(-1, self.shape)

    def reconstruction(self, x: Tensor) -> Callable[[Sites], Tensor]:
        """−log p(x | z) in nats, `(*lead, B)`, as a function of z, `(*lead, B, K)` per latent variable."""

        def f(sample: Sites) -> Tensor:
            pixels = self.decoder(concatenated(sample))
            lost = nn.functional.binary_cross_entropy_with_logits(pixels, x.expand_as(pixels), reduction="none")
            return lost.sum(-1)

        return f


def _mlp(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (inner, outer) in enumerate(itertools.pairwise(sizes)):
        layers += [nn.LeakyReLU(0.3)] * (i > 0) + [nn.Linear(inner, outer)]
    return nn.Sequential(*layers)


def divergence(logits: Tensor) -> Tensor:
    """KL(q ‖ uniform) in nats, `(B,)` from `(B, L, K)`."""
    log_p = torch.log_softmax(logits, -1)
    return (log_p.exp() * log_p).sum((-2, -1)) + logits.shape[-2] * math.log(logits.shape[-1])


class Run:
    """A training run: the network, an estimator or (plain) the mean of q in place of z, and their optimizers.

    Args:
        vae: the network.
        estimator: or None for plain.
        images: intensities in [0, 1], `(N, pixels)`, binarised anew for every step.
        lr, control_lr: of Adam on the network and on what the estimator learns.
        batch_size: images of a step.
        seed: of order, binarisation and noise, each with a generator of its own.
    """

    def __init__(
        self,
        vae: Vae,
        estimator: Estimator | None,
        images: Tensor,
        *,
        lr: float,
        control_lr: float,
        batch_size: int,
        seed: int,
    ) -> None:
        self.vae, self.estimator, self.images, self.batch_size = vae, estimator, images, batch_size
        self.order, self.pixels, self.noise = (
            torch.Generator(images.device).manual_seed(seed_of("vae", name, seed)) for name in ("order", "x", "noise")
        )
        self.optimizers = [torch.optim.Adam(vae.parameters(), lr=lr)]
        if estimator is not None and (control := list(estimator.parameters())):
            self.optimizers.append(torch.optim.Adam(control, lr=control_lr))
        self.left: list[Tensor] = []
        self.steps = 0

    def minibatch(self) -> Tensor:
        """The next binary images, `(B, pixels)`."""
        if not self.left:
            self.left = list(batches(len(self.images), self.batch_size, self.order))[::-1]
        return torch.bernoulli(self.images[self.left.pop()], generator=self.pixels)

    def step(self) -> None:
        self.train_on(self.minibatch())

    def train_on(self, x: Tensor) -> None:
        """One step on binary images."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        logits = self.vae.logits(x)
        leaf = logits.detach().requires_grad_()  # the encoder is passed once, by the sum of what reaches its output
        f, sites = self.vae.reconstruction(x), leaf.unbind(-2)
        divergence(leaf).sum().backward()
        if self.estimator is None:
            f(tuple(torch.softmax(site, -1) for site in sites)).sum().backward()
        else:
            try:
                self.estimator.backward(f, sites, generator=self.noise)
            except ValueError:
                if bool(leaf.isfinite().all()):
                    raise
                raise Diverged(f"the logits are not finite after {self.steps} steps") from None
        logits.backward(leaf.grad)
        for optimizer in self.optimizers:
            optimizer.step()
        self.steps += 1

    def tensors(self) -> dict[str, list[Tensor]]:
        modules = [m for m in (self.vae, self.estimator) if m is not None]
        kept = [t for module in modules for t in (*module.parameters(), *module.buffers())]
        state = [t for o in self.optimizers for s in o.state.values() for t in s.values() if isinstance(t, Tensor)]
        return {"parameters": kept, "optimizer": state}

    def snapshot(self) -> dict[str, Any]:
        """A copy of everything that training changes."""
        own = {} if self.estimator is None else dict(self.estimator.state_dict())
        state = {"vae": dict(self.vae.state_dict()), "estimator": own, "left": self.left, "steps": self.steps}
        state |= {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}
        state |= {"generators": [g.get_state() for g in (self.order, self.pixels, self.noise)]}
        return copy.deepcopy(state)

    def restore(self, state: dict[str, Any]) -> None:
        """Return to a snapshot."""
        state = copy.deepcopy(state)
        self.vae.load_state_dict(state["vae"])
        self.left, self.steps = list(state["left"]), state["steps"]
        if self.estimator is not None:
            self.estimator.load_state_dict(state["estimator"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        for generator, saved in zip((self.order, self.pixels, self.noise), state["generators"], strict=True):
            generator.set_state(saved)


@torch.no_grad()
def bound(vae: Vae, images: Tensor, samples: int, chunk: int = 500) -> tuple[Tensor, Tensor]:
    """Mean −log p(x | z) and KL per image, `(N,)` each, on images binarised once for all by a fixed seed.

    Raises:
        Diverged: the logits are not finite.
    """
    generator = torch.Generator(images.device).manual_seed(0)
    noise = torch.Generator(images.device).manual_seed(1)
    lost, rate = [], []
    for part in images.split(chunk):
        x = torch.bernoulli(part, generator=generator)
        logits = vae.logits(x)
        if not bool(logits.isfinite().all()):
            raise Diverged("the logits are not finite")
        p = torch.softmax(logits, -1)
        drawn = torch.multinomial(p.flatten(0, 1), samples, replacement=True, generator=noise)
        index = drawn.view(len(x), -1, samples).movedim(-1, 0)  # (samples, B, L)
        z = nn.functional.one_hot(index, p.shape[-1]).to(p.dtype)
        lost.append(vae.reconstruction(x)(z.unbind(-2)).mean(0))
        rate.append(divergence(logits))
    return torch.cat(lost), torch.cat(rate)


class VaeTask(Task):
    """The VAE task.

    Bias and variance are those of the logits' gradients of four test images, at three points of one training run by
    leave-one-out with four samples; a stateful estimator rides along on minibatches of four training images there.
    """

    name = "vae"
    plain = False
    uses_data = frozenset({"bias", "variance", "accuracy"})
    settings: ClassVar[dict[str, tuple[str, ...]]] = {
        "bias": (*_TRAINED, "ride", "vae_estimates", "references"),
        "variance": (*_TRAINED, "ride", "vae_estimates"),
        "memory": (*_MODEL, "batch_size"),
        "overhead": (*_MODEL, "batch_size", "overhead_pairs"),
        "accuracy": _TRAINED,
    }

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The data, on the device."""
        return _load(self.context.dataset, self.context.data_root, self.context.device)

    @functools.cached_property
    def images(self) -> tuple[Tensor, Tensor]:
        """Intensities in [0, 1] of training and test images, `(N, pixels)`, the mean over their channels."""
        most = 255.0 if self.dataset.name != "digits" else 240.0
        train, test = (
            split.images.float().mean(1).flatten(1) / most for split in (self.dataset.train, self.dataset.test)
        )
        return train, test

    def prepare(self) -> None:
        if self.preset.batch_size > len(self.images[0]):
            raise ValueError(f"batch_size={self.preset.batch_size} exceeds the {len(self.images[0])} training images")

    def sizes(self, suite: str) -> tuple[int, ...]:
        return (self.preset.categories,) * self.preset.latents

    def estimates(self, evaluations: int) -> int:
        return max(20, self.preset.vae_estimates // evaluations)

    def vae(self, mean: Tensor, seed: int) -> Vae:
        """A fresh network. Equal seeds give equal weights whatever the estimator."""
        p = self.preset
        with torch.random.fork_rng(devices=[]), self.context.device:
            torch.manual_seed(seed)
            return Vae(mean, p.latents, p.categories, p.vae_layers, p.vae_hidden)

    def run(self, make: Make | None, images: Tensor, seed: int) -> Run:
        """A fresh training run."""
        p = self.preset
        with self.context.device:
            estimator = None if make is None else make(self.sizes("accuracy"))
        vae = self.vae(images.mean(0), seed)
        return Run(vae, estimator, images, lr=p.vae_lr, control_lr=p.control_lr, batch_size=p.batch_size, seed=seed)

    @functools.lru_cache(maxsize=1)  # noqa: B019  one task lives as long as the sweep
    def _reference_run(self, seed: int) -> tuple[Run, dict[str, dict[str, Any]]]:
        run = self.run(lambda sizes: estimators.get("rloo", sizes=sizes, samples=4), self.images[0], seed)

        def make() -> dict[str, dict[str, Any]]:
            ends = {name: round(part * self.preset.vae_steps) for name, part in POINTS.items()}
            at: dict[str, dict[str, Any]] = {}
            for step in range(self.preset.vae_steps + 1):
                at |= {name: run.snapshot() for name, end in ends.items() if step == end}
                if step < self.preset.vae_steps:
                    run.step()
                    self.context.progress("reference run", step + 1, self.preset.vae_steps)
            return at

        return run, self.kept("reference-run", seed, _TRAINED, make)

    def points(self, seed: int) -> Iterator[Point]:
        run, at = self._reference_run(seed)
        device = self.context.device
        generator = torch.Generator(device).manual_seed(seed_of("vae", "measured", seed))
        x = torch.bernoulli(self.images[1][:MEASURED], generator=generator)
        f = run.vae.reconstruction(x)
        for name, progress in POINTS.items():
            run.restore(at[name])
            with torch.no_grad():
                logits = run.vae.logits(x).unbind(-2)

            def ride(estimator: Estimator, name: str = name) -> None:
                control = list(estimator.parameters())
                optimizer = torch.optim.Adam(control, lr=self.preset.control_lr) if control else None
                noise = torch.Generator(device).manual_seed(seed_of("vae", "ride", seed, name))
                for _ in range(self.preset.ride):
                    pick = torch.randint(len(run.images), (MEASURED,), generator=noise, device=device)
                    other = torch.bernoulli(run.images[pick], generator=noise)
                    estimator.zero_grad()
                    with torch.no_grad():
                        sites = run.vae.logits(other).unbind(-2)
                    estimator.estimate(run.vae.reconstruction(other), sites, estimator.draw(sites, noise))
                    if optimizer is not None:
                        optimizer.step()

            weights = list(run.vae.decoder.parameters())
            yield Point(name, progress, logits, weights, lambda stream, i: f, ride, stochastic=False)

    def workload(self, make: Make | None, suite: str) -> _Repeated:
        if suite == "variance":
            return _Repeated(self.run(make, self.images[0], 0))
        # neither time nor storage depends on what the images show
        blank = torch.zeros(self.preset.batch_size, 28 * 28, device=self.context.device)
        return _Repeated(self.run(make, blank, 0))

    def alone(self, suite: str) -> tuple[Callable[[Sites], Tensor], Sites]:
        x = torch.zeros(self.preset.batch_size, 28 * 28, device=self.context.device)
        vae = self.vae(x.mean(0), 0)
        return vae.reconstruction(x), vae.logits(x).detach().unbind(-2)

    def train(
        self,
        make: Make | None,
        seed: int,
        keeper: Keeper,
    ) -> list[dict[str, Any]]:
        assert make is not None
        train, test = self.images
        run = self.run(make, train, seed)
        assert run.estimator is not None
        curve: list[Any] = []
        if (saved := keeper.load(self.context.device)) is not None:
            run.restore(saved["run"])
            curve = [tuple(pair) for pair in saved["curve"]]
        steps = self.preset.vae_steps
        every = max(1, steps // 20)
        while True:
            if run.steps % every == 0 or run.steps == steps:
                lost, rate = bound(run.vae, test[:SHOWN], 1)
                if not curve or curve[-1][0] != run.steps:
                    curve.append((run.steps, -float((lost + rate).mean())))
                self.context.progress("training", run.steps, steps)
                if not math.isfinite(curve[-1][1]):
                    raise Diverged(f"the ELBO is no longer finite at step {run.steps}")
            if run.steps >= steps:
                break
            run.estimator.anneal(run.steps / steps)
            run.step()
            keeper.offer(lambda: {"run": run.snapshot(), "curve": curve})
        keeper.finish({"run": run.snapshot(), "curve": curve})
        rows = []
        for part, images in (("train", train[: len(test)]), ("test", test)):
            lost, rate = bound(run.vae, images, SAMPLES)
            for metric, values in (("elbo", -(lost + rate)), ("distortion", lost), ("rate", rate)):
                rows.append(row(metric, float(values.mean()), part=part, n=len(values), unit="nats"))
        return [*rows, *(row("curve_elbo", value, x=at, unit="nats") for at, value in curve)]


class _Repeated:
    """A step of a run, on one minibatch."""

    def __init__(self, run: Run) -> None:
        self.run, self.x = run, run.minibatch()

    def step(self) -> None:
        self.run.train_on(self.x)

    def tensors(self) -> dict[str, list[Tensor]]:
        return self.run.tensors()
