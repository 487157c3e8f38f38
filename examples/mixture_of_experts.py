"""A mixture of linear experts, of which each image is sent to one: is a digit odd or even?

No linear function can tell. The router learns from a sample whose gradient is an estimate, at a temperature that falls.
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import estimators

EXPERTS, STEPS = 8, 600

torch.manual_seed(0)
pixels, digits = (torch.as_tensor(part) for part in load_digits(return_X_y=True))
images, odd, order = pixels.float() / 16, digits % 2, torch.randperm(len(pixels))
train, test = order[:1400], order[1400:]


class Mixture(nn.Module):
    def __init__(self, experts: int) -> None:
        super().__init__()
        self.router = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, experts))
        self.experts = nn.Linear(64, experts * 2)
        # a module like any other: it moves to a device, and is saved, with the rest
        self.estimator = estimators.get("gumbel_rao", sizes=[experts], temperature=(1.0, 0.3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (rows, 2) of images (rows, 64), and the mean probability of each expert."""
        logits = self.router(x)
        best = F.one_hot(logits.argmax(-1), logits.shape[-1]).to(x)
        route = estimators.sample(self.estimator, logits) if self.training else best  # one-hot (rows, experts)
        scores = self.experts(x).unflatten(-1, (-1, 2))
        return (route.unsqueeze(-1) * scores).sum(-2), torch.softmax(logits, -1).mean(0)


def trained(experts: int) -> Mixture:
    model = Mixture(experts)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(STEPS):
        model.estimator.anneal(step / STEPS)
        pick = train[torch.randint(len(train), (64,))]
        scores, share = model(images[pick])
        balance = (share * share.log()).sum()  # without it one expert would soon get everything
        optimizer.zero_grad()
        (F.cross_entropy(scores, odd[pick]) + 0.3 * balance).backward()
        optimizer.step()
    return model.eval()  # from here on the likeliest expert, and no draws


for model in (trained(1), trained(EXPERTS)):
    with torch.no_grad():
        right = (model(images[test])[0].argmax(-1) == odd[test]).float().mean()
        sent = model.router(images[test]).argmax(-1).bincount(minlength=model.router[-1].out_features)
    print(f"test accuracy {right:.3f}, images sent to each expert: {sent.tolist()}")
