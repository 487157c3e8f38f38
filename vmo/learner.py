"""The learner: one training step, for any model.

    clear gradients → learning rates at this progress → the problem's gradients → optimizers → count

A network, a VAE and a plain function differ only in their problem: a callable that puts the gradients of one minibatch
into `.grad` and returns the loss. For the estimator's gradients it calls `Learner.backward`, at logits that are
parameters or an encoder's output; it adds gradients that are known exactly. The learner holds everything else: the
estimator and its parameters, optimizers, schedules, generators and progress. A snapshot of these resumes a run bit for
bit.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from estimators.base import Estimator
from estimators.objective import Sites
from vmo.schedule import Schedule

Problem = Callable[[], Tensor]
"""Puts the gradients of one minibatch into `.grad`, and returns its loss, of any shape."""


class Diverged(ArithmeticError):
    """Training has diverged: the loss or the logits are no longer finite."""


class Learner:
    """The state of a run, and its training step.

    Args:
        modules: the trained modules by name, without the estimator.
        optimizers: their optimizers by name. If φ is a parameter (not an encoder's output), its optimizer is "phi".
        schedules: learning-rate schedules by the optimizer's name. Other optimizers keep their learning rate.
        estimator: the estimator of the gradient of q's logits, or None.
        control_lr: learning rate of the optimizer "control": Adam, for the estimator's own parameters if it has any.
        generators: random generators by name, whose states belong to the run. "noise" is the estimator's.
        steps: steps of the whole run. None: no end; schedules stay at their start and nothing is annealed.

    Raises:
        ValueError: a schedule for an unknown optimizer.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        *,
        schedules: Mapping[str, Schedule] | None = None,
        estimator: Estimator | None = None,
        control_lr: float,
        generators: Mapping[str, torch.Generator],
        steps: int | None = None,
    ) -> None:
        self.modules, self.optimizers, self.generators = dict(modules), dict(optimizers), dict(generators)
        self.estimator, self.steps = estimator, steps
        if estimator is not None:
            self.modules["estimator"] = estimator
            if control := list(estimator.parameters()):
                self.optimizers["control"] = torch.optim.Adam(control, lr=control_lr)
        self._rates = {name: _constant(optimizer) for name, optimizer in self.optimizers.items()}
        if unknown := set(schedules or {}) - set(self._rates):
            raise ValueError(f"no optimizer is called {', '.join(sorted(unknown))}; there are {', '.join(self._rates)}")
        self._rates |= schedules or {}
        self.step_count = 0
        self._began = 0
        self.held = False
        self._warm = False

    @property
    def progress(self) -> float:
        """The completed fraction of the run, in [0, 1]; after `begin_anew`, of the part since then."""
        return 0.0 if self.steps is None else min(1.0, (self.step_count - self._began) / max(1, self.steps))

    def begin_anew(self, steps: int) -> None:
        """Restart the schedules, for this number of steps. Everything that has been learned is kept."""
        self._began, self.steps = self.step_count, steps

    def step(self, problem: Problem) -> Tensor:
        """One update of everything. Returns the problem's loss, detached, on its device.

        Raises:
            Diverged: see `backward`.
        """
        for name, optimizer in self.optimizers.items():
            optimizer.zero_grad(set_to_none=True)
            still = name == "phi" and self.held
            for group in optimizer.param_groups:
                group["lr"] = 0.0 if still else self._rates[name](self.progress)
        loss = problem().detach()  # frees the graph
        for name, optimizer in self.optimizers.items():
            if name != "phi" or not self.held or self._warm:
                optimizer.step()
        self.step_count += 1
        return loss

    def backward(
        self, objective: Callable[[Sites], Tensor], logits: Sites, estimator: Estimator | None = None
    ) -> Tensor:
        """`Estimator.backward` with an estimator, annealed to the run's progress, and the learner's noise.

        Args:
            objective: f.
            logits: `(*rows, K_l)` per site, leaves or not; each receives its gradient.
            estimator: default: the learner's estimator.

        Returns:
            the detached loss `(*rows)`.

        Raises:
            Diverged: the logits are not finite. (Not checked on a GPU, where it would wait for the device.)
        """
        estimator = self._annealed(estimator or self.estimator)
        with self._divergence(logits):
            return estimator.backward(objective, logits, generator=self.generators["noise"])

    def estimate(
        self, objective: Callable[[Sites], Tensor], logits: Sites, estimator: Estimator | None = None
    ) -> Tensor:
        """As `backward`, but without a gradient for the logits: only weights and the estimator itself train.

        Args:
            objective: f.
            logits: `(*rows, K_l)` per site.
            estimator: default: the learner's estimator.
        """
        estimator = self._annealed(estimator or self.estimator)
        with self._divergence(logits):
            return estimator.estimate(objective, logits, estimator.draw(logits, self.generators["noise"])).loss

    def _annealed(self, estimator: Estimator | None) -> Estimator:
        if estimator is None:
            raise ValueError("this learner has no estimator")
        if self.steps is not None:
            estimator.anneal(self.progress)
        return estimator

    @contextlib.contextmanager
    def _divergence(self, logits: Sites) -> Iterator[None]:
        """Turns an estimator's ValueError into Diverged if the logits are not finite."""
        try:
            yield
        except ValueError:
            largest = [site.amax(-1) for site in logits]  # finite even where a category is forbidden by −inf
            if all(bool(most.isfinite().all()) for most in largest):
                raise
            raise Diverged(f"the logits are not finite after {self.step_count} steps") from None

    def hold(self, *, warm: bool = False) -> None:
        """Keep φ fixed until `release`, exactly and for any optimizer. Everything else trains on.

        Args:
            warm: False: φ's optimizer makes no step. True: it makes its step at a learning rate of 0. Then its moments
                follow the gradients, and a step costs as much as when φ moves.

        Raises:
            ValueError: φ has no optimizer of its own.
        """
        if "phi" not in self.optimizers:
            raise ValueError("there is no φ to hold: no optimizer is called 'phi'")
        self.held, self._warm = True, warm

    def release(self) -> None:
        """Let φ train again, with the present moments of its optimizer."""
        self.held = self._warm = False

    def tensors(self) -> dict[str, list[Tensor]]:
        """The tensors of "parameters" (with buffers) and of "optimizer" state, for memory counts."""
        kept = [t for module in self.modules.values() for t in (*module.parameters(), *module.buffers())]
        states = [state for optimizer in self.optimizers.values() for state in optimizer.state.values()]
        return {"parameters": kept, "optimizer": [t for s in states for t in s.values() if isinstance(t, Tensor)]}

    def snapshot(self) -> dict[str, Any]:
        """A copy of everything that a step changes: nested dicts and lists of tensors and plain numbers."""
        state: dict[str, Any] = {"step": self.step_count, "held": self.held, "warm": self._warm}
        state |= {"began": self._began, "steps": self.steps}
        state["modules"] = {name: dict(module.state_dict()) for name, module in self.modules.items()}
        state["optimizers"] = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        state["generators"] = {name: generator.get_state() for name, generator in self.generators.items()}
        return copy.deepcopy(state)

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a snapshot. The run then continues exactly as it did from there."""
        self.step_count, self.held, self._warm = state["step"], state["held"], state["warm"]
        self._began, self.steps = state["began"], state["steps"]
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(copy.deepcopy(state["optimizers"][name]))  # it keeps the tensors it is given
        for name, generator in self.generators.items():
            generator.set_state(state["generators"][name])


def ride(
    estimator: Estimator,
    moments: Iterable[tuple[Callable[[Sites], Tensor], Sites]],
    *,
    control_lr: float,
    noise: torch.Generator,
) -> None:
    """Let an estimator in training mode adapt to a run driven by another one: one step for each point of that run.

    Args:
        estimator: only its own parameters and buffers change.
        moments: objective and detached logits `(*rows, K_l)` for each step. The next is requested after the previous
            has been used, so that the run can continue in between and anneal the estimator.
        control_lr: learning rate of a new Adam for the estimator's parameters.
        noise: generator of the estimates' noise.
    """
    learner = Learner({}, {}, estimator=estimator, control_lr=control_lr, generators={"noise": noise})
    for objective, logits in moments:
        learner.step(functools.partial(learner.estimate, objective, logits))


def _constant(optimizer: torch.optim.Optimizer) -> Schedule:
    lr = float(optimizer.param_groups[0]["lr"])
    return lambda progress: lr
