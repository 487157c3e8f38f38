"""A policy gradient with a reward of the whole sequence: spell the name of a digit from its image, "three" for a 3.

    f(z) = edit distance between the word z and the name,    z_t ~ q(z_t|x),  t = 1 … 5,  16 tokens

The tokens are the letters that occur, and one that ends the word. The policy draws all of its tokens at once. The edit
distance (Levenshtein) is the least number of letters to insert, delete or replace. It exists for tokens only: f has no
slopes, and no gradient passes through it. It is no sum over tokens: a letter too many at the front shifts all others.
A plain step, in which costs are expressed, therefore evaluates f and learns nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from results.table import row
from suites.tasks.amortised import AmortisedTask, at_mode
from suites.tasks.amortised_model import Batch, Model
from suites.tasks.base import Sites

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
END = 0
"""The token that ends a word; all after it are ignored."""
TOKENS = ("", *sorted(set("".join(NAMES))))
LENGTH = max(map(len, NAMES))


class Spelling(Model):
    """A policy with one hidden layer. An example is an image `(pixels,)` and the tokens of its word, int64 `(LENGTH,)`.

    Args:
        mean: mean intensities `(pixels,)`.
        hidden: width of the hidden layer.
    """

    def __init__(self, mean: Tensor, hidden: int) -> None:
        super().__init__(mean, (LENGTH, len(TOKENS)), 1, hidden)

    def objective(self, batch: Batch) -> Callable[[Sites], Tensor]:
        """The edit distance to the word, in letters."""
        return lambda sample: distance(written(sample), batch[1])


class SpellingTask(AmortisedTask):
    """The spelling task."""

    name = "spelling"
    slopes = False

    def shape(self, how: Any) -> tuple[int, int]:
        return LENGTH, len(TOKENS)

    def examples(self) -> tuple[Batch, Batch]:
        data, words = self.dataset, tokens().to(self.context.device)
        if data.classes != len(NAMES):
            raise ValueError(f"the task spelling needs {len(NAMES)} classes, and {data.name} has {data.classes}")
        train, test = self.images
        return (train.flatten(1), words[data.train.labels]), (test.flatten(1), words[data.test.labels])

    def blank(self, count: int) -> Batch:
        device = self.context.device
        return torch.zeros(count, 28 * 28, device=device), tokens().to(device)[torch.arange(count) % len(NAMES)]

    def model(self, how: Any, examples: Batch) -> Spelling:
        return Spelling(examples[0].mean(0), how.hidden)

    def rows(self, model: Model, part: str, examples: Batch) -> Iterator[dict[str, Any]]:
        """Besides the objective: the fraction of words that are right at the most probable tokens."""
        yield from super().rows(model, part, examples)
        right = at_mode(model, examples, model.objective) == 0
        yield row("accuracy", float(right.float().mean()), part=part, n=len(right), unit="fraction")


def tokens() -> Tensor:
    """The tokens of each name, int64 `(10, LENGTH)`."""
    return torch.tensor([[TOKENS.index(c) for c in name] + [END] * (LENGTH - len(name)) for name in NAMES])


def written(sample: Sites) -> Tensor:
    """The tokens, int64 `(*lead, B, LENGTH)`, of a one-hot sample."""
    index = torch.broadcast_tensors(*(site.argmax(-1) for site in sample))
    return torch.stack(index, -1)


def distance(first: Tensor, second: Tensor) -> Tensor:
    """Edit distance `(*lead)` between words, tokens `(*lead, LENGTH)` each, by dynamic programming over prefixes.

    d(i, j) = min(d(i−1, j) + 1, d(i, j−1) + 1, d(i−1, j−1) + [a_i ≠ b_j]) is the distance between the first i letters
    of one and the first j of the other.
    """
    first, second = torch.broadcast_tensors(first, second)
    lengths = [(word != END).cumprod(-1).sum(-1) for word in (first, second)]
    size = first.shape[-1]
    unequal = (first.unsqueeze(-1) != second.unsqueeze(-2)).float()
    above = [unequal.new_full(unequal.shape[:-2], float(j)) for j in range(size + 1)]
    table = [torch.stack(above, -1)]
    for i in range(1, size + 1):
        here = [torch.full_like(above[0], float(i))]
        for j in range(1, size + 1):
            least = torch.minimum(torch.minimum(above[j], here[-1]) + 1, above[j - 1] + unequal[..., i - 1, j - 1])
            here.append(least)
        above = here
        table.append(torch.stack(above, -1))
    whole = torch.stack(table, -2).flatten(-2)
    return whole.gather(-1, (lengths[0] * (size + 1) + lengths[1]).unsqueeze(-1)).squeeze(-1)
