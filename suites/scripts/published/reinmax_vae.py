"""The categorical VAE of the ReinMax paper, with 4 latent variables of 8 categories."""

from __future__ import annotations

import torch
from torch import Tensor

import estimators
from suites.scripts.published import images
from suites.scripts.published.experiment import Arm, Asked, Experiment, Number, make
from suites.tasks.vae_model import divergence

LATENTS, CATEGORIES = 4, 8
PIXELS = 784
BATCH = 100
ARMS: dict[str, tuple[float, float]] = {  # learning rate of Adam, published −ELBO
    "reinmax[temperature=1.3]": (5e-4, 124.66),
    "gumbel_straight_through[temperature=0.5]": (3e-4, 126.85),
    "gapped[gap=1.0,temperature=1.0]": (5e-4, 126.35),
}


def measure(asked: Asked) -> list[float]:
    """The average −ELBO of the training images during the last epoch."""
    train, _ = images.intensities(asked.data_root)
    encoder = images.layers((PIXELS, 512, 256, LATENTS * CATEGORIES), asked.seed)
    decoder = images.layers((LATENTS * CATEGORIES, 256, 512, PIXELS), asked.seed + 10_000)
    estimator = make(asked.arm, (CATEGORIES,) * LATENTS)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=ARMS[asked.arm][0])
    noise = torch.Generator().manual_seed(asked.seed)

    def loss_of(x: Tensor) -> Tensor:
        logits = encoder(x).unflatten(-1, (LATENTS, CATEGORIES))
        code = torch.cat(estimators.sample(estimator, logits.unbind(-2), generator=noise), -1)
        lost = torch.nn.functional.binary_cross_entropy_with_logits(decoder(code), x, reduction="sum") / len(x)
        rate: Tensor = divergence(logits).mean()
        return lost + rate

    return [images.train(asked, train, BATCH, optimizer, loss_of)]


EXPERIMENT = Experiment(
    name="reinmax_vae",
    paper="Liu et al. 2023",
    arxiv="2304.08612",
    setting=(
        "A VAE on MNIST with 4 latent variables of 8 categories. Encoder and decoder have hidden layers of 512 and 256 "
        "ReLU units. The target of the decoder is the intensity of a pixel, without binarisation. Adam, minibatches of "
        "100, 160 epochs. Shown is −ELBO in nats, averaged over the last epoch of training. Temperatures and learning "
        "rates are those that the authors chose for each estimator."
    ),
    length=160,
    unit="epochs",
    arms=tuple(
        Arm(label, (Number(f"−ELBO, `{label}`", value, 0.5, "the table of MNIST-VAE, 8 × 4", "recalled"),))
        for label, (_, value) in ARMS.items()
    ),
    measure=measure,
    dataset=images.NAME,
    long=True,
)
