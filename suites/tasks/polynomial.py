"""Polynomial programming, a common test of biased estimators: 128 variables with the same optimal value.

    f(x) = 1/128 Σ_d |b_d − t|^p,    b_d = Σ_k x_{d,k} k / (K − 1),    t = 0.45

With K = 2 categories b_d is binary, as in the papers; with more it has K levels in [0, 1]. f is additive over the
variables, so E_q f and its gradient are known exactly. Liu et al. 2023, arXiv:2304.08612, Section 5.1.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from estimators import Estimate
from suites.settings import Group, Settings
from suites.tasks.base import Sites
from suites.tasks.function import Control, Estimates, FunctionGroup, FunctionTask, Ride
from suites.tasks.functions import Function, aligned

VARIABLES, TARGET = 128, 0.45


class Polynomial(Function):
    """f of the polynomial task.

    Args:
        power: p ≥ 1.
        categories: K ≥ 2.
        device: the device of its constants.

    Raises:
        ValueError: power or categories out of range.
    """

    def __init__(self, power: float, categories: int, device: torch.device) -> None:
        if categories < 2 or not power >= 1:
            raise ValueError(f"polynomial needs categories >= 2 and power >= 1, got {categories} and {power:g}")
        self.sizes = (categories,) * VARIABLES
        self.power = power
        self.device = device
        self.levels = torch.linspace(0, 1, categories, device=device)
        self.cost = (self.levels - TARGET).abs().pow(power)

    def __call__(self, sample: Sites) -> Tensor:
        x = torch.stack(tuple(aligned(sample)), -2)
        b = x @ self.levels.to(x.dtype)
        return (b - TARGET).abs().pow(self.power).mean(-1)

    def hard(self, index: Sites) -> Tensor:
        """f at categories, int64 `(*lead)` per site."""
        return self.cost[torch.stack(tuple(torch.broadcast_tensors(*index)), -1)].mean(-1)

    def expectation(self, logits: Sites) -> Estimate:
        p = torch.softmax(torch.stack(tuple(logits), -2), -1)
        cost = self.cost / VARIABLES
        each = (p * cost).sum(-1, keepdim=True)
        return Estimate(each.sum((-2, -1)), (p * (cost - each)).unbind(-2))

    def minimum(self) -> float:
        return float(self.cost.min())


class Shape(Settings):
    """Which polynomial."""

    power: float = Field(2.0, ge=1)
    """The exponent p."""
    categories: int = Field(2, ge=2)
    """Number of categories K of each of the 128 variables."""


class Trained(Shape):
    """Which polynomial, and how long φ is trained."""

    steps: int = Field(600, ge=1)
    """Training steps."""


class PolynomialGroup(Trained, Group, name="polynomial"):
    """The polynomial task."""

    presets: ClassVar = {"smoke": {"steps": 40}, "cpu": {"steps": 8000}, "paper": {"steps": 8000}}


class ShapeSettings(Settings):
    """Handed to the roles of a step."""

    polynomial: Shape


class EstimatesSettings(ShapeSettings):
    """Handed for "estimates"."""

    function: Estimates


class RunSettings(Settings):
    """Handed for "run"."""

    function: Control
    polynomial: Trained


class PointsSettings(Settings):
    """Handed for "points"."""

    function: Ride
    polynomial: Trained


class PolynomialTask(FunctionTask):
    """The polynomial task, with 64 estimates per step as in the papers."""

    name = "polynomial"
    rows = 64
    groups = (FunctionGroup, PolynomialGroup)
    roles: ClassVar = FunctionTask.roles | {
        "points": PointsSettings,
        "estimates": EstimatesSettings,
        "step": ShapeSettings,
        "timed": ShapeSettings,
        "counted": ShapeSettings,
        "run": RunSettings,
    }

    def function(self, settings: Any) -> Polynomial:
        shape: Shape = settings.polynomial
        return Polynomial(shape.power, shape.categories, self.context.device)

    def steps(self, settings: Any) -> int:
        return int(settings.polynomial.steps)

    def about(self, settings: Any) -> Settings:
        return Trained(**settings.polynomial.model_dump())
