"""The design of the study: which runs there are, what is asked of them, and the thresholds, all fixed beforehand.

A *run* is a training run of the accuracy suite at the preset `study`, on one task, data set and seed. An *arm* is a set
of runs that differ in their seed alone. Runs of equal seeds begin with equal weights and see equal minibatches, so that
arms are compared seed by seed. `vmo-bench study` runs what stands here; `results.study` reads it.

The distribution over architectures, q, is learned with one estimator of its gradient; the weights are trained on
samples that may come from elsewhere. The two are separate switches:

    φ by        sweep                        no bias, little variance
                rloo                         no bias, much variance
                averaged Concrete            bias, less variance: the mean of four draws of Concrete as the paper has it
                concrete                     bias and much variance: Concrete at 0.1 → 0.001, as the paper has it
    weights on  mode                         the architecture that q stands for at that step
                soft                         soft masks of Concrete at the paper's temperatures

In every run of the parts `factorial`, `estimators`, `weights`, `schedule`, `after` and `held_out` q is held to half of
the full network's MACs, so that all networks cost the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

PRESET = "study"
EPOCHS = 48
MARGIN = 0.5
"""Points of test accuracy: two arms whose difference lies within ± this, with its 95 % interval, are equivalent."""
LEVEL = 0.05
"""Of the tests of the ten statements together, by Holm's correction."""
MOST = 0.5
"""Part of a drop in accuracy that is "most" of it."""
TOO_MUCH = 2.0
"""Plain steps from which a step is "too expensive" in memory or time."""
MINIMAL = 1.25
"""Plain steps up to which an overhead is "minimal"."""
SEEDS = 5
"""Runs of an arm that a verdict takes. With fewer there is none: to look after every seed is to test many times."""

PAPER = "concrete"
SWEEP = "sweep"
RLOO = "rloo"
AVERAGED = "averaged[of='concrete']"
WARM = "concrete[temperature=1.0]"
HARD = "reinforce[baseline='none']"
RATES = ("0.02", "0.08", "0.32")
DEPTH_RATES = ("0.005", "0.02", "0.08")
"""Learning rates of φ that every estimator is tried with on width, and `exact` on depth."""
CHOSEN: Mapping[str, str] = {
    SWEEP: "0.08",
    RLOO: "0.32",
    "reinforce": "0.08",
    HARD: "0.32",
    PAPER: "0.32",
    WARM: "0.32",
    "relax": "0.32",
    "random": "0.02",  # which learns nothing
}
"""Of each estimator the rate with the best accuracy on validation images on the width task, from the part `tuning`.
Concrete at other temperatures and the mean of its draws have that of Concrete."""
CHOSEN_DEPTH = "0.02"
"""The same of `exact` on the depth task; used for every estimator on depth and joint."""
TUNED = {"train.epochs": "20", "train.validation": "0.1"}
LITERAL = {"penalty.target_macs": "0.0", "penalty.kind": "literal"}
"""The paper's own penalty, 1e-3 d + 1e-8 Σ k."""
DEFAULTS: Mapping[str, object] = {
    "network.depth": 16,
    "network.widen": 1,
    "network.width_step": 4,
    "train.epochs": EPOCHS,
    "train.images": 10_000,
    "train.recipe": "fast",
    "train.batch_size": 128,
    "train.lr": 0.2,
    "train.phi_lr": 0.02,
    "train.phi_optimizer": "adam",
    "train.control_lr": 0.01,
    "train.weights": "own",
    "train.freeze": 0,
    "train.continued": 0,
    "train.held_out": 0.0,
    "train.validation": 0.0,
    "train.bf16": False,
    "train.compile": False,
    "penalty.kind": "macs",
    "penalty.gamma": 0.3,
    "penalty.target_macs": 0.5,
}
"""The settings of a run at the preset, where an arm changes none."""


@dataclass(frozen=True)
class Arm:
    """Runs that differ in their seed alone.

    Attributes:
        estimator: of φ, or a baseline.
        changed: settings, beside those of the preset.
        task: "width", "depth" or "joint".
        dataset: of the images.
        seeds: how many runs.
        suites: that measure it.
    """

    estimator: str
    changed: Mapping[str, str] = field(default_factory=dict)
    task: str = "width"
    dataset: str = "cifar10_16"
    seeds: int = 5
    suites: tuple[str, ...] = ("accuracy",)


def arm(estimator: str, weights: str = "own", *, rate: bool = True, **how: object) -> Arm:
    """An arm with the learning rate that was chosen for its estimator."""
    changed = dict(how.pop("changed", {}))  # type: ignore[call-overload]
    if weights != "own":
        changed["train.weights"] = weights
    if rate and estimator != "plain":
        deep = how.get("task", "width") != "width"
        changed.setdefault("train.phi_lr", CHOSEN_DEPTH if deep else CHOSEN[_learned(estimator)])
    return Arm(estimator, changed, **how)  # type: ignore[arg-type]


def _learned(estimator: str) -> str:
    """Whose learning rate an arm has: a control that of the network it controls, an average that of its draws."""
    learned = estimator.partition("of='")[2].rpartition("'")[0] or estimator
    return learned if learned in CHOSEN else PAPER


def of_tuning() -> Iterator[Arm]:
    """Every estimator at the same few learning rates of φ: half as long, on validation images, one seed."""
    for estimator in (SWEEP, RLOO, "reinforce", HARD, PAPER, WARM, "relax"):
        for rate in RATES:
            changed = {**TUNED, "train.phi_lr": rate}
            yield arm(estimator, rate=False, changed=changed, seeds=1)
    for rate in DEPTH_RATES:
        changed = {**TUNED, **LITERAL, "train.phi_lr": rate}
        yield arm("exact", task="depth", rate=False, changed=changed, seeds=1)


def of_factorial() -> Iterator[Arm]:
    """What the drop from the plain network to Concrete's is taken apart with."""
    yield arm("plain")
    for weights in ("mode", PAPER):
        for estimator in (SWEEP, PAPER, RLOO):
            yield arm(estimator, weights)
    yield arm(PAPER)
    yield arm(f"scratch[of='{SWEEP}']", "mode")
    yield arm(f"scratch[of='{PAPER}']")
    yield arm(f"uniform[of='{PAPER}']")
    yield arm("random")


def of_average() -> Iterator[Arm]:
    """The rest of the factorial, which takes longest: the bias of Concrete with less of its variance."""
    for weights in ("mode", PAPER):
        yield arm(AVERAGED, weights)


def of_estimators() -> Iterator[Arm]:
    """Every estimator as it comes: weights train on its own samples."""
    for estimator in (SWEEP, RLOO, "reinforce", HARD, "relax", WARM):
        yield arm(estimator)


def of_weights() -> Iterator[Arm]:
    """What weights may train on, beside the factorial."""
    for weights in (HARD, WARM):
        for estimator in (SWEEP, PAPER):
            yield arm(estimator, weights, seeds=3)
    yield arm(WARM, "mode", seeds=3)
    yield arm("random", PAPER, seeds=3)


SCHEDULES = {
    "constant 0.1": "0.1",
    "constant 0.5": "0.5",
    "constant 1": "1.0",
    "1 → 0.1": "(1.0, 0.1)",
    "1 → 0.01": "(1.0, 0.01)",
    "0.1 → 0.001, linear": "(0.1, 0.001, 'linear')",
    "1 → 0.1 with the entropy of q": "(1.0, 0.1, 'entropy')",
}
"""Temperatures of Concrete beside the paper's 0.1 → 0.001 on a log scale."""


def of_schedule() -> Iterator[Arm]:
    """Concrete at other temperatures."""
    for temperature in SCHEDULES.values():
        yield arm(f"concrete[temperature={temperature}]", seeds=5 if temperature == "1.0" else 3)


def of_after() -> Iterator[Arm]:
    """Longer training of the weights once the choice is made, at equal numbers of epochs."""
    for frozen in (EPOCHS // 4, EPOCHS // 2):
        yield arm(PAPER, changed={"train.freeze": str(frozen)})
    twice = {"train.epochs": str(2 * EPOCHS)}
    yield arm("plain", changed=twice, seeds=3)
    yield arm(PAPER, changed=twice, seeds=3)
    yield arm(PAPER, changed={**twice, "train.freeze": str(EPOCHS)}, seeds=3)
    yield arm(PAPER, changed={"train.continued": str(EPOCHS)}, seeds=3)
    yield arm(PAPER, changed={"train.continued": str(EPOCHS // 2)}, seeds=3)


def of_table_1(dataset: str) -> Iterator[Arm]:
    """The paper's Table 1: its own penalty."""
    yield arm("plain", dataset=dataset)
    for task in ("depth", "width", "joint"):
        yield arm(PAPER, task=task, dataset=dataset, changed=LITERAL)
        yield arm("exact" if task == "depth" else SWEEP, task=task, dataset=dataset, changed=LITERAL)


def of_depth() -> Iterator[Arm]:
    """Depth, where the gradient of φ can be had exactly."""
    for estimator in (RLOO, "reinforce"):
        yield arm(estimator, task="depth", changed=LITERAL)
    yield arm(f"scratch[of='{PAPER}']", task="depth", changed=LITERAL)
    yield arm("exact", "mode", task="depth", changed=LITERAL)
    yield arm(PAPER, "mode", task="depth", changed=LITERAL)


def of_held_out() -> Iterator[Arm]:
    """φ learned on images that train no weights."""
    for estimator in (SWEEP, PAPER):
        yield arm(estimator, "mode", changed={"train.held_out": "0.1"}, seeds=3)


def of_deciding(dataset: str, seeds: int) -> Iterator[Arm]:
    """The arms that the statement on bias rests on, elsewhere."""
    yield arm("plain", dataset=dataset, seeds=seeds)
    for estimator, weights in ((PAPER, "own"), (SWEEP, "mode"), (PAPER, "mode")):
        yield arm(estimator, weights, dataset=dataset, seeds=seeds)
    yield arm(f"scratch[of='{SWEEP}']", "mode", dataset=dataset, seeds=seeds)


def of_all_images() -> Iterator[Arm]:
    """The same arms with all 50,000 training images and about twice the steps."""
    changed = {"train.images": "0", "train.epochs": "16"}
    yield arm("plain", changed=changed, seeds=3)
    for estimator, weights in ((PAPER, "own"), (SWEEP, "mode"), (PAPER, "mode")):
        yield arm(estimator, weights, changed=changed, seeds=3)


def of_convergence() -> Iterator[Arm]:
    """Whether runs are long enough: plain training, also three times as long, by both recipes."""
    for recipe, lr in (("fast", "0.2"), ("wrn", "0.1")):
        for epochs in (EPOCHS, 3 * EPOCHS):
            yield arm("plain", changed={"train.recipe": recipe, "train.lr": lr, "train.epochs": str(epochs)}, seeds=3)


TEMPERATURES = ("0.03", "0.1", "0.3", "1.0", "3.0")


def of_gradient() -> Iterator[Arm]:
    """Bias and variance of one estimate along a reference run, and Concrete's along its temperature."""
    names = [f"concrete[temperature={t}]" for t in TEMPERATURES]
    for estimator in (*names, HARD, "reinforce", RLOO, "rebar", "relax", SWEEP):
        yield Arm(estimator, {"penalty.target_macs": "0.0"}, seeds=1, suites=("bias", "variance"))


PARTS = {
    "tuning": lambda: of_tuning(),
    "factorial": lambda: of_factorial(),
    "average": lambda: of_average(),
    "estimators": lambda: of_estimators(),
    "gradient": lambda: of_gradient(),
    "convergence": lambda: of_convergence(),
    "table1": lambda: of_table_1("cifar10_16"),
    "schedule": lambda: of_schedule(),
    "after": lambda: of_after(),
    "depth": lambda: of_depth(),
    "weights": lambda: of_weights(),
    "cifar100-table1": lambda: of_table_1("cifar100_16"),
    "cifar100": lambda: of_deciding("cifar100_16", 5),
    "held_out": lambda: of_held_out(),
    "all-images": lambda: of_all_images(),
    "cifar10-32": lambda: of_deciding("cifar10", 3),
}
"""The parts of the study, in the order in which they are run."""
