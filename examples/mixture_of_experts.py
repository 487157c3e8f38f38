"""A mixture of experts: a gate sends each input to one of four linear experts, and only that expert is used.

python examples/mixture_of_experts.py
"""

import torch
from torch import nn

import estimators

EXPERTS = 4

torch.manual_seed(0)
inputs = torch.rand(2048, 1) * 4 - 2
targets = (inputs * 2).sin() + 0.05 * torch.randn(2048, 1)  # no single line fits

gate = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, EXPERTS))
experts = nn.Linear(1, EXPERTS)  # one line each
estimator = estimators.get("rloo", sizes=(EXPERTS,), samples=4)
optimizer = torch.optim.Adam([*gate.parameters(), *experts.parameters()], lr=0.01)


def error(choice, x, y):
    """Squared error of the chosen expert: choice is one-hot, (*lead, inputs, EXPERTS)."""
    return ((choice * experts(x)).sum(-1) - y[:, 0]) ** 2


for step in range(2001):
    chosen = torch.randint(0, len(inputs), (128,))
    x, y = inputs[chosen], targets[chosen]
    optimizer.zero_grad()
    estimator.backward(lambda sample: error(sample[0], x, y), (gate(x),))  # noqa: B023  called at once
    optimizer.step()
    if step % 500 == 0:
        with torch.no_grad():
            hard = nn.functional.one_hot(gate(inputs).argmax(-1), EXPERTS).float()
            used = int((hard.sum(0) > 0).sum())
            print(f"step {step}: mean squared error {error(hard, inputs, targets).mean():.3f}, {used} experts in use")
