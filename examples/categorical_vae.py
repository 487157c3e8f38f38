"""A categorical VAE of the digits, trained by an estimator with a control variate.

    −ELBO(x) = E_{z ~ q(z|x)} [−log p(x | z)] + KL(q(z|x) ‖ p(z)),    p(z) uniform

The expectation is what the estimator is for. The divergence has a formula, and autograd differentiates it.
"""

import math

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import estimators

SITES, VALUES, STEPS = 8, 8, 900

torch.manual_seed(0)
images = (torch.as_tensor(load_digits().data) > 8).float()[torch.randperm(1797)]
train, test = images[:1400], images[1400:]

encoder = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, SITES * VALUES))
decoder = nn.Sequential(nn.Linear(SITES * VALUES, 128), nn.ReLU(), nn.Linear(128, 64))
estimator = estimators.get("rebar", sizes=[VALUES] * SITES, coupled=True)
optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=2e-3)
# the strength and the temperature of the control variate, whose loss is the variance of the gradient
control = torch.optim.Adam(estimator.parameters(), lr=1e-2)


def negative_elbo(x: Tensor) -> Tensor:
    """(rows) of images (rows, 64)."""
    logits = encoder(x).unflatten(-1, (SITES, VALUES))

    def reconstruction(sample: tuple[Tensor, ...]) -> Tensor:
        pixels = decoder(torch.cat(sample, -1))
        return F.binary_cross_entropy_with_logits(pixels, x.expand_as(pixels), reduction="none").sum(-1)

    log_q = torch.log_softmax(logits, -1)
    divergence = (log_q.exp() * (log_q + math.log(VALUES))).sum((-2, -1))
    return estimators.surrogate(estimator, reconstruction, logits.unbind(-2)) + divergence


for step in range(STEPS):
    for each in (optimizer, control):
        each.zero_grad()
    loss = negative_elbo(train[torch.randint(len(train), (64,))])
    loss.sum().backward()  # of encoder, decoder and control variate
    for each in (optimizer, control):
        each.step()
    if (step + 1) % 300 == 0:
        print(f"step {step + 1}: ELBO {-loss.mean():.2f} nats")

estimator.eval()  # nothing is tuned on test images
with torch.no_grad():
    bound = -torch.cat([negative_elbo(test) for _ in range(10)]).mean()
alone = torch.distributions.Bernoulli(train.mean(0).clamp(1e-3, 1 - 1e-3)).log_prob(test).sum(-1).mean()
print(f"test ELBO {bound:.2f} nats, where independent pixels have {alone:.2f}")
