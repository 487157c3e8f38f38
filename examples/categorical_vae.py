"""A variational autoencoder with categorical latent variables, on 8×8 digits.

python examples/categorical_vae.py [ESTIMATOR]
"""

import math
import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

import estimators

SITES, CATEGORIES = 8, 8
name = sys.argv[1] if len(sys.argv) > 1 else "reinmax"

images = torch.tensor(load_digits().data > 7, dtype=torch.float32)  # binary pixels
train, test = images[:1500], images[1500:]

torch.manual_seed(0)
encoder = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, SITES * CATEGORIES))
decoder = nn.Sequential(nn.Linear(SITES * CATEGORIES, 128), nn.ReLU(), nn.Linear(128, 64))
estimator = estimators.get(name, sizes=(CATEGORIES,) * SITES)
optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=3e-3)


def latent(batch):
    """The logits of q(z | x): one (images, CATEGORIES) tensor per site."""
    return encoder(batch).view(-1, SITES, CATEGORIES).unbind(1)


def divergence(logits):
    """KL(q(z | x) ‖ uniform), (images), exact."""
    return sum((site.softmax(-1) * (site.log_softmax(-1) + math.log(CATEGORIES))).sum(-1) for site in logits)


def reconstruction(batch):
    """−log p(x | z) as a function of the sample z."""

    def objective(sample):
        pixels = decoder(torch.cat(sample, -1))  # (*lead, images, 64)
        target = batch.expand_as(pixels)
        return nn.functional.binary_cross_entropy_with_logits(pixels, target, reduction="none").sum(-1)

    return objective


def elbo(batch):
    """The evidence lower bound in nats, by one sample per image."""
    with torch.no_grad():
        logits = latent(batch)
        sample = tuple(torch.distributions.OneHotCategorical(logits=site).sample() for site in logits)
        return -(reconstruction(batch)(sample) + divergence(logits)).mean()


for step in range(1001):
    batch = train[torch.randint(0, len(train), (64,))]
    logits = latent(batch)
    optimizer.zero_grad()
    divergence(logits).sum().backward(retain_graph=True)
    estimator.backward(reconstruction(batch), logits)  # fills .grad of the encoder and of the decoder
    optimizer.step()
    if step % 250 == 0:
        print(f"step {step}: test ELBO {elbo(test):.1f} nats")
