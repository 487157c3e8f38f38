"""The design of the study: runs, questions and thresholds, fixed before the training runs; but see `LOOKS`.

A *run* is a training run of the accuracy suite at the preset `study`, on one task, data set and seed. An *arm* is a set
of runs that differ only in the seed. Runs with equal seeds have equal initial weights and see equal minibatches, so
arms are compared seed by seed. `vmo-bench study` runs this design; `results.study` evaluates it.

An estimator of φ's gradient trains q, the distribution over architectures with logits φ. The weights may train on
samples of another kind. These are separate switches:

    φ by        sweep                        no bias, little variance
                rloo                         no bias, much variance
                averaged Concrete            bias, less variance: the mean of four draws of the paper's Concrete
                concrete                     bias and much variance: Concrete at 0.1 → 0.001, as in the paper
    weights on  mode                         the architecture chosen from q at that step
                soft                         soft masks of Concrete at the paper's temperatures

q is held to half of the full network's MACs, so that all networks cost the same. The parts `table1`, `cifar100-table1`
and `depth` use the paper's penalty instead, and the part `gradient` the preset's penalty of MACs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

PRESET = "study"
EPOCHS = 48
MARGIN = 0.5
"""Smallest relevant difference in test accuracy, in points."""
LEVEL = 0.05
"""Significance level of all ten statements together, with Holm's correction."""
MOST = 0.5
"""Fraction of a drop in accuracy above which it counts as "most"."""
TOO_MUCH = 2.0
"""A step is "too expensive" above this memory or time, in plain steps."""
MINIMAL = 1.25
"""An overhead is "minimal" below this time of a step, in plain steps."""
LOOKS = (5, 10)
"""Runs of an arm at which a statement is tested: once with five and, if that leaves it open, once more with ten. There
are no tests in between. The second look was added after the first had left statements open. So all p values are
multiplied by the number of looks, those of the first look too."""
FRESH = range(10, 30)
"""Seeds of the replication: one more test of statements 6 and 9, which both looks had left open. It uses these seeds
alone, once all have run. It is an experiment of its own, with its own significance level `LEVEL`, and Holm's correction
over its two tests. It was designed after the second look and before any of its runs."""

PAPER = "concrete"
SWEEP = "sweep"
RLOO = "rloo"
AVERAGED = "averaged[of='concrete']"
WARM = "concrete[temperature=1.0]"
HARD = "reinforce[baseline='none']"
RATES = ("0.02", "0.08", "0.32")
DEPTH_RATES = ("0.005", "0.02", "0.08")
"""Learning rates of φ to choose from: `RATES` for every estimator on width, `DEPTH_RATES` for `exact` on depth."""
CHOSEN: Mapping[str, str] = {
    SWEEP: "0.08",
    RLOO: "0.32",
    "reinforce": "0.08",
    HARD: "0.32",
    PAPER: "0.32",
    WARM: "0.32",
    "relax": "0.32",
    "random": "0.02",  # has no effect: q is not learned
    "l0": "0.32",
    "l0_arm": "0.32",
    "pruned": "0.02",  # has no effect: it has no φ
    "slimmable": "0.02",  # has no effect: q is not learned
}
"""The learning rate of each estimator with the best validation accuracy on the width task, from the part `tuning`,
for `l0` and `l0_arm` from `rivals-tuning`. Concrete at other temperatures and the mean of its draws use Concrete's
rate."""
CHOSEN_DEPTH = "0.02"
"""The best rate of `exact` on the depth task, used for every estimator on depth and joint."""
TUNED = {"train.epochs": "20", "train.validation": "0.1"}
LITERAL = {"penalty.target_macs": "0.0", "penalty.kind": "literal"}
"""The paper's penalty, 1e-3 d + 1e-8 Σ k, with depth d and widths k."""
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
"""The settings of a run at the preset, before the changes of its arm."""


@dataclass(frozen=True)
class Arm:
    """Runs that differ only in their seed.

    Attributes:
        estimator: the estimator of φ's gradient, or a baseline.
        changed: changes to the preset's settings.
        task: "width", "depth" or "joint".
        dataset: the data set.
        seeds: the number of runs.
        suites: the suites that measure it.
    """

    estimator: str
    changed: Mapping[str, str] = field(default_factory=dict)
    task: str = "width"
    dataset: str = "cifar10_16"
    seeds: int = 5
    suites: tuple[str, ...] = ("accuracy",)


def arm(estimator: str, weights: str = "own", *, rate: bool = True, **how: object) -> Arm:
    """An arm with the learning rate chosen for its estimator."""
    changed = dict(how.pop("changed", {}))  # type: ignore[call-overload]
    if weights != "own":
        changed["train.weights"] = weights
    if rate and estimator != "plain":
        deep = how.get("task", "width") != "width"
        changed.setdefault("train.phi_lr", CHOSEN_DEPTH if deep else CHOSEN[_learned(estimator)])
    return Arm(estimator, changed, **how)  # type: ignore[arg-type]


def _learned(estimator: str) -> str:
    """The estimator whose learning rate an arm uses: for a control or an average, that of its inner estimator."""
    learned = estimator.partition("of='")[2].rpartition("'")[0] or estimator
    return learned if learned in CHOSEN else PAPER


def of_tuning() -> Iterator[Arm]:
    """Every estimator at the same few learning rates of φ: shorter runs, on validation images, with one seed."""
    for estimator in (SWEEP, RLOO, "reinforce", HARD, PAPER, WARM, "relax"):
        for rate in RATES:
            changed = {**TUNED, "train.phi_lr": rate}
            yield arm(estimator, rate=False, changed=changed, seeds=1)
    for rate in DEPTH_RATES:
        changed = {**TUNED, **LITERAL, "train.phi_lr": rate}
        yield arm("exact", task="depth", rate=False, changed=changed, seeds=1)


def of_factorial() -> Iterator[Arm]:
    """The runs for the decomposition of the drop from the plain network to Concrete's."""
    yield arm("plain")
    for weights in ("mode", PAPER):
        for estimator in (SWEEP, PAPER, RLOO):
            yield arm(estimator, weights)
    yield arm(PAPER)
    yield arm(f"scratch[of='{SWEEP}']", "mode")
    yield arm(f"scratch[of='{PAPER}']")
    yield arm(f"uniform[of='{PAPER}']")
    yield arm("random")


def of_tests() -> Iterator[Arm]:
    """The runs of which the verdicts on statements 1, 6, 8, 9 and 10 are made. All belong to other parts too."""
    for estimator in (SWEEP, PAPER):
        yield arm(estimator, "mode")
    for estimator in (PAPER, f"scratch[of='{PAPER}']", "random", "reinforce", WARM):
        yield arm(estimator)
    yield arm(PAPER, changed={"train.freeze": str(EPOCHS // 2)})
    for dataset in ("cifar10_16", "cifar100_16"):
        yield arm("plain", dataset=dataset)
        for task in ("width", "joint"):
            yield arm(PAPER, task=task, dataset=dataset, changed=LITERAL)
    yield arm(PAPER, task="depth", changed=LITERAL)


def of_second_look() -> Iterator[Arm]:
    """The runs of `tests` behind statements 1, 6 and 9 again, with the seeds of the second look."""
    for estimator in ("random", "reinforce"):
        yield arm(estimator, seeds=LOOKS[-1])
    for estimator in (SWEEP, PAPER):
        yield arm(estimator, "mode", seeds=LOOKS[-1])


def of_replication() -> Iterator[Arm]:
    """The arms of statements 6 and 9 again, with fresh seeds after those of the second look."""
    for estimator in (SWEEP, PAPER):
        yield arm(estimator, "mode", seeds=FRESH.stop)


def of_average() -> Iterator[Arm]:
    """The rest of the factorial, which takes longest: Concrete's bias with less variance."""
    for weights in ("mode", PAPER):
        yield arm(AVERAGED, weights)


def of_estimators() -> Iterator[Arm]:
    """Every estimator with weights that train on its own samples."""
    for estimator in (SWEEP, RLOO, "reinforce", HARD, "relax", WARM):
        yield arm(estimator)


def of_weights() -> Iterator[Arm]:
    """Further samples that weights may train on, besides those of the factorial."""
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
"""Temperature schedules of Concrete other than the paper's 0.1 → 0.001 on a log scale."""


def of_schedule() -> Iterator[Arm]:
    """Concrete at other temperatures."""
    for temperature in SCHEDULES.values():
        yield arm(f"concrete[temperature={temperature}]", seeds=5 if temperature == "1.0" else 3)


def of_after() -> Iterator[Arm]:
    """Longer training of the weights after the choice of the architecture, compared at equal numbers of epochs."""
    for frozen in (EPOCHS // 4, EPOCHS // 2):
        yield arm(PAPER, changed={"train.freeze": str(frozen)})
    twice = {"train.epochs": str(2 * EPOCHS)}
    yield arm("plain", changed=twice, seeds=3)
    yield arm(PAPER, changed=twice, seeds=3)
    yield arm(PAPER, changed={**twice, "train.freeze": str(EPOCHS)}, seeds=3)
    yield arm(PAPER, changed={"train.continued": str(EPOCHS)}, seeds=3)
    yield arm(PAPER, changed={"train.continued": str(EPOCHS // 2)}, seeds=3)


def of_table_1(dataset: str) -> Iterator[Arm]:
    """The paper's Table 1, with the paper's penalty."""
    yield arm("plain", dataset=dataset)
    for task in ("depth", "width", "joint"):
        yield arm(PAPER, task=task, dataset=dataset, changed=LITERAL)
        yield arm("exact" if task == "depth" else SWEEP, task=task, dataset=dataset, changed=LITERAL)


def of_depth() -> Iterator[Arm]:
    """The depth task, where the gradient of φ can be computed exactly."""
    for estimator in (RLOO, "reinforce"):
        yield arm(estimator, task="depth", changed=LITERAL)
    yield arm(f"scratch[of='{PAPER}']", task="depth", changed=LITERAL)
    yield arm("exact", "mode", task="depth", changed=LITERAL)
    yield arm(PAPER, "mode", task="depth", changed=LITERAL)


def of_held_out() -> Iterator[Arm]:
    """φ learns from images that do not train weights."""
    for estimator in (SWEEP, PAPER):
        yield arm(estimator, "mode", changed={"train.held_out": "0.1"}, seeds=3)


def of_deciding(dataset: str, seeds: int) -> Iterator[Arm]:
    """The arms behind the statement on bias, on another data set."""
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
    """Tests whether runs are long enough: plain training with both recipes, also three times as long."""
    for recipe, lr in (("fast", "0.2"), ("wrn", "0.1")):
        for epochs in (EPOCHS, 3 * EPOCHS):
            yield arm("plain", changed={"train.recipe": recipe, "train.lr": lr, "train.epochs": str(epochs)}, seeds=3)


GATES = ("l0", "l0_arm")
"""Rivals whose gates have logits φ."""
RIVALS = (*GATES, "pruned", "slimmable")
"""Rivals of VMO: other ways to a narrower network."""


def of_rivals_tuning() -> Iterator[Arm]:
    """Every rival with gates at the learning rates that every estimator was tried at."""
    for rival in GATES:
        for rate in RATES:
            yield arm(rival, rate=False, changed={**TUNED, "train.phi_lr": rate}, seeds=1)


def rivals(dataset: str = "cifar10_16") -> Mapping[str, Arm]:
    """The networks of about equal MACs that are compared, by their names; and the plain network."""
    how: dict[str, Any] = {"dataset": dataset, "seeds": 3, "suites": ("accuracy", "latency")}
    return {
        "plain network": arm("plain", dataset=dataset, seeds=3),
        "VMO: sweep, weights on the mode": arm(SWEEP, "mode", **how),
        "VMO: Concrete of the paper": arm(PAPER, **how),
        "sweep's network, trained alone": arm(f"scratch[of='{SWEEP}']", "mode", **how),
        "uniform width": arm(f"uniform[of='{PAPER}']", **how),
        "random widths": arm("random", **how),
        **{name: arm(name, **how) for name in RIVALS},
    }


COST = Arm(
    SWEEP,
    {
        "train.weights": "mode",
        "timed.widen": "1",
        "timed.batch": "16",
        "overhead.pairs": "2",
        "overhead.seconds": "0.0",
    },
    seeds=1,
    suites=("overhead",),
)
"""Counts the MACs of a step of `sweep` with weights on the mode. Times do not matter here."""


TEMPERATURES = ("0.03", "0.1", "0.3", "1.0", "3.0")


def of_gradient() -> Iterator[Arm]:
    """Bias and variance of one estimate on a reference run, for Concrete at several temperatures."""
    names = [f"concrete[temperature={t}]" for t in TEMPERATURES]
    for estimator in (*names, HARD, "reinforce", RLOO, "rebar", "relax", SWEEP):
        yield Arm(estimator, {"penalty.target_macs": "0.0"}, seeds=1, suites=("bias", "variance"))


PARTS = {
    "tuning": lambda: of_tuning(),
    "tests": lambda: of_tests(),
    "second-look": lambda: of_second_look(),
    "replication": lambda: of_replication(),
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
    "rivals-tuning": lambda: of_rivals_tuning(),
    "rivals": lambda: iter((*rivals().values(), COST)),
}
"""The parts of the study, in the order in which they run."""
