"""A classifier with a discrete bottleneck: a digit is read from eight categorical variables of eight values each.

Every image has logits of its own, made by an encoder, so that a minibatch is a minibatch of rows.
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import estimators

SITES, VALUES, STEPS = 8, 8, 450

torch.manual_seed(0)
pixels, labels = (torch.as_tensor(part) for part in load_digits(return_X_y=True))
images, order = pixels.float() / 16, torch.randperm(len(pixels))
train, test = order[:1400], order[1400:]

encoder = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, SITES * VALUES))
classifier = nn.Sequential(nn.Linear(SITES * VALUES, 128), nn.ReLU(), nn.Linear(128, 10))
optimizer = torch.optim.Adam([*encoder.parameters(), *classifier.parameters()], lr=3e-3)
estimator = estimators.get("rloo", sizes=[VALUES] * SITES, samples=4)


def logits_of(batch: Tensor) -> tuple[Tensor, ...]:
    """One tensor (rows, VALUES) for each variable."""
    return encoder(batch).unflatten(-1, (SITES, VALUES)).unbind(-2)


for step in range(STEPS):
    pick = train[torch.randint(len(train), (64,))]
    target = labels[pick]

    def cross_entropy(sample: tuple[Tensor, ...], target: Tensor = target) -> Tensor:
        """(samples, rows) from one-hot (samples, rows, VALUES) for each variable.

        The estimator asks for all its samples of every row at once, in a leading dimension. `F.cross_entropy` knows no
        such dimension, so it is flattened into the rows and taken out again.
        """
        scores = classifier(torch.cat(sample, -1))
        each = F.cross_entropy(scores.flatten(0, -2), target.expand(scores.shape[:-1]).flatten(), reduction="none")
        return each.view(scores.shape[:-1])

    optimizer.zero_grad()
    # fills .grad of the classifier and, through the logits, of the encoder: the sums over rows
    loss = estimator.backward(cross_entropy, logits_of(images[pick]))
    optimizer.step()
    if (step + 1) % 150 == 0:
        print(f"step {step + 1}: cross entropy {loss.mean():.3f}")

with torch.no_grad():  # the likeliest value of every variable
    code = [F.one_hot(site.argmax(-1), VALUES).float() for site in logits_of(images[test])]
    right = classifier(torch.cat(code, -1)).argmax(-1) == labels[test]
print(f"test accuracy {right.float().mean():.3f}")
