"""A discrete information bottleneck: an image of a digit becomes a code of 4 symbols, and the code alone is classified.

python examples/bottleneck.py
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import estimators

SITES, SYMBOLS, BETA = 4, 8, 0.01

digits = load_digits()
images = torch.tensor(digits.data / 16.0, dtype=torch.float32)
labels = torch.tensor(digits.target)
train, test = slice(0, 1500), slice(1500, None)

torch.manual_seed(0)
encoder = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, SITES * SYMBOLS))
decoder = nn.Sequential(nn.Linear(SITES * SYMBOLS, 64), nn.ReLU(), nn.Linear(64, 10))
estimator = estimators.get("rloo", sizes=(SYMBOLS,) * SITES, samples=4)
optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=3e-3)


def code(batch):
    """The logits of the code: one (images, SYMBOLS) tensor per site."""
    return encoder(batch).view(-1, SITES, SYMBOLS).unbind(1)


for step in range(601):
    chosen = torch.randint(0, 1500, (64,))
    logits = code(images[chosen])

    def objective(sample):  # one-hot (samples, images, SYMBOLS) per site in, (samples, images) out
        scores = decoder(torch.cat(sample, -1))
        target = labels[chosen].expand(scores.shape[:-1])  # noqa: B023  used in this step alone
        return nn.functional.cross_entropy(scores.movedim(-1, 1), target, reduction="none")

    optimizer.zero_grad()
    rate = sum((site.softmax(-1) * site.log_softmax(-1)).sum(-1) for site in logits).mean()  # minus the entropy
    (BETA * 64 * rate).backward(retain_graph=True)
    loss = estimator.backward(objective, logits)  # fills .grad of the encoder and of the decoder
    optimizer.step()
    if step % 200 == 0:
        with torch.no_grad():
            symbols = [nn.functional.one_hot(site.argmax(-1), SYMBOLS).float() for site in code(images[test])]
            accuracy = (decoder(torch.cat(symbols, -1)).argmax(-1) == labels[test]).float().mean()
        print(f"step {step}: loss {loss.mean():.3f} nats, test accuracy {accuracy:.1%}")
