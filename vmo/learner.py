"""The learner: what a step of training does, whatever is trained.

    clear gradients → learning rates at this progress → the problem's gradients → optimizers → count

A network, a VAE and a function of a sample differ in their problem: one call of it leaves the gradients of one
minibatch in `.grad` and gives the loss. It has `Learner.backward` for what an estimator gives, at logits that are
parameters or that an encoder puts out, and adds what is known exactly. The learner keeps the rest: the estimator and
what it learns, optimizers, schedules, generators, progress, and all of these in a snapshot from which a run goes on to
the bit.
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
"""Leaves the gradients of one minibatch in `.grad`, and gives its loss, of any shape."""


class Diverged(ArithmeticError):
    """Training has left the numbers: the loss or the logits are no longer finite."""


class Learner:
    """The state of a run, and its step.

    Args:
        modules: what is trained, by name. The estimator need not be among them.
        optimizers: of these, by name. Where φ is a parameter, and not the output of an encoder, its own is "phi".
        schedules: learning rates of optimizers, by name; the others keep the one that they came with.
        estimator: of the gradient of q's logits, or None.
        control_lr: Adam's, on what the estimator learns by gradients, if it does: the optimizer "control".
        generators: whose states are part of the run's, by name; that of the estimator's noise is "noise".
        steps: of the whole run. None: it has no end, schedules stay at their beginning and nothing is annealed.

    Raises:
        ValueError: a schedule of an optimizer that is not there.
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
        """The part of the run that is done, in [0, 1]; after `begin_anew`, of what began then."""
        return 0.0 if self.steps is None else min(1.0, (self.step_count - self._began) / max(1, self.steps))

    def begin_anew(self, steps: int) -> None:
        """Let schedules start again from their beginning, for so many steps. What has been learned stays."""
        self._began, self.steps = self.step_count, steps

    def step(self, problem: Problem) -> Tensor:
        """One update of everything; the problem's loss, detached and still on the device.

        Raises:
            Diverged: see `backward`.
        """
        for name, optimizer in self.optimizers.items():
            optimizer.zero_grad(set_to_none=True)
            still = name == "phi" and self.held
            for group in optimizer.param_groups:
                group["lr"] = 0.0 if still else self._rates[name](self.progress)
        loss = problem().detach()  # what its graph kept alive need not outlast it
        for name, optimizer in self.optimizers.items():
            if name != "phi" or not self.held or self._warm:
                optimizer.step()
        self.step_count += 1
        return loss

    def backward(self, objective: Callable[[Sites], Tensor], logits: Sites) -> Tensor:
        """`Estimator.backward` of the learner's estimator, annealed to the run's progress, on the learner's noise.

        Args:
            objective: f.
            logits: `(*rows, K_l)` per site, leaves or not; each receives its gradient.

        Returns:
            the detached loss `(*rows)`.

        Raises:
            Diverged: the logits are not finite. (On a GPU no estimator looks, and it is seen in the loss.)
        """
        estimator = self._annealed(self.estimator)
        with self._divergence(logits):
            return estimator.backward(objective, logits, generator=self.generators["noise"])

    def estimate(
        self, objective: Callable[[Sites], Tensor], logits: Sites, estimator: Estimator | None = None
    ) -> Tensor:
        """As `backward`, at logits that receive nothing: what trains are weights, and the estimator itself.

        Args:
            objective: f.
            logits: `(*rows, K_l)` per site.
            estimator: by default the learner's own.
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
        """What estimators say of logits that are no distribution is said as what it is."""
        try:
            yield
        except ValueError:
            if all(bool(torch.isfinite(site).all()) for site in logits):
                raise
            raise Diverged(f"the logits are not finite after {self.step_count} steps") from None

    def hold(self, *, warm: bool = False) -> None:
        """Let φ stay as it is, to the bit and whatever its optimizer, until `release`; all else trains on.

        Args:
            warm: False: its optimizer rests as well. True: that takes its step at a learning rate of 0, so that its
                moments follow the gradients, and a step costs what it costs where φ moves.

        Raises:
            ValueError: no optimizer is φ's own.
        """
        if "phi" not in self.optimizers:
            raise ValueError("there is no φ to hold: none of the optimizers is called 'phi'")
        self.held, self._warm = True, warm

    def release(self) -> None:
        """Let φ move again, by the moments that its optimizer has."""
        self.held = self._warm = False

    def tensors(self) -> dict[str, list[Tensor]]:
        """ "parameters" (with buffers) and "optimizer" state, as they are now."""
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
        """Return to a snapshot, from which the run goes on exactly as it went on then."""
        self.step_count, self.held, self._warm = state["step"], state["held"], state["warm"]
        self._began, self.steps = state["began"], state["steps"]
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(copy.deepcopy(state["optimizers"][name]))  # of tensors it takes what it is given
        for name, generator in self.generators.items():
            generator.set_state(state["generators"][name])


def ride(
    estimator: Estimator,
    moments: Iterable[tuple[Callable[[Sites], Tensor], Sites]],
    *,
    control_lr: float,
    noise: torch.Generator,
) -> None:
    """Let an estimator in training mode adapt along a run that is not its own: a step for each of its moments.

    Args:
        estimator: whatever it learns is all that moves.
        moments: objective and logits `(*rows, K_l)`, detached; each is asked for when the one before has been used, so
            that a run may go on in between, and anneal the estimator.
        control_lr: of an Adam that begins here.
        noise: of the estimates.
    """
    learner = Learner({}, {}, estimator=estimator, control_lr=control_lr, generators={"noise": noise})
    for objective, logits in moments:
        learner.step(functools.partial(learner.estimate, objective, logits))


def _constant(optimizer: torch.optim.Optimizer) -> Schedule:
    lr = float(optimizer.param_groups[0]["lr"])
    return lambda progress: lr
