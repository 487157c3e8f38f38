"""Presets: every number that a cell depends on, by the name of the preset that chose it."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch


@dataclass(frozen=True)
class Preset:
    """Sizes and budgets of the suites. The defaults are those of `quick`.

    Args:
        dataset: where the command line names none.
        depth, widen: of the trained network, WRN-depth-widen.
        width_step: channels per category of a width.
        epochs, batch_size, lr, phi_lr, phi_optimizer, control_lr, bf16, compile: see `vmo.recipe.Recipe`; `cpu`
            has bf16 only where the processor computes in it, and is `cpu[bf16=False]` elsewhere; `paper` compiles only
            where there is a CUDA device.
        freeze: epochs at the end in which q is frozen at its most probable architecture.
        weights: what the weights train on: "own", the samples of the estimator, or a pass of their own on "hard" or
            "soft" samples (Concrete's, as the paper anneals it), or on those of any other estimator, such as
            "concrete[temperature=1.0]".
        penalty: "macs" or "parameters" (normalised: gamma nats for the full network) or "literal" (the VMO paper's
            1e-3 d + 1e-8 Σ k, whatever gamma is).
        gamma: of a normalised penalty, in nats.
        target_macs: 0, or the part of the full network's MACs that q is held to instead of being penalised.
        seeds: of the accuracy suite.
        steps: of the reference trajectory along which bias and variance are measured.
        ride: steps for which a stateful estimator rides along before each point.
        estimates: fresh estimates per point.
        budget: the most evaluations of the objective that one point may cost (at least 20 estimates are made).
        references: minibatches of the reference gradient; enumerated where the space has at most `enumerate`
            configurations, else leave-one-out with 8 samples.
        enumerate: see `references`.
        toy_steps, toy_estimates: the same for tasks that are a function and nothing else, whose estimates are
            vectorised; the number is that of the toy, and fewer in proportion where there are more logits.
        polynomial_power, polynomial_categories, polynomial_steps: p and K of the polynomial task, and its steps.
        latents, categories: sites of the categorical VAE, and K of each.
        vae_layers, vae_hidden: hidden layers of its encoder and of its decoder (0: linear), and their width.
        vae_steps, vae_lr, vae_estimates: training steps, Adam's learning rate, and estimates per point.
        overhead_depth, overhead_widen, overhead_batch, overhead_pairs: the network and minibatch whose training step is
            timed (32×32 images), and how many interleaved pairs of steps.
        overhead_seconds: after which no further pair is timed; the rows say how many there were, and nothing else
            depends on it.
        memory_depth, memory_widen, memory_batch: the network whose step's storage is counted, under fake tensors.
        contest_estimates, contest_steps, contest_runs: of the contest suite, fresh estimates per point, and for as long
            as how many plain steps, and how often, φ alone is optimised.
        scaling_batch, scaling_values, scaling_pairs: the minibatch around which the scaling suite varies one size at a
            time (the network is that of `depth`, `widen` and `width_step`), the values that it takes of each range, and
            the interleaved pairs of steps that it times at each.
    """

    dataset: str = "digits"
    depth: int = 10
    widen: int = 1
    width_step: int = 8
    epochs: int = 8
    batch_size: int = 64
    lr: float = 0.1
    phi_lr: float = 0.05
    phi_optimizer: str = "adam"
    control_lr: float = 0.01
    bf16: bool = False
    compile: bool = False
    freeze: int = 0
    weights: str = "own"
    penalty: str = "macs"
    gamma: float = 0.3
    target_macs: float = 0.0
    seeds: int = 3
    steps: int = 300
    ride: int = 50
    estimates: int = 200
    budget: int = 400
    references: int = 60
    enumerate: int = 64
    toy_steps: int = 2000
    toy_estimates: int = 100_000
    polynomial_power: float = 2.0
    polynomial_categories: int = 2
    polynomial_steps: int = 600
    latents: int = 16
    categories: int = 10
    vae_layers: int = 2
    vae_hidden: int = 200
    vae_steps: int = 600
    vae_lr: float = 1e-3
    vae_estimates: int = 2000
    overhead_depth: int = 16
    overhead_widen: int = 2
    overhead_batch: int = 16
    overhead_pairs: int = 8
    overhead_seconds: float = 5.0
    memory_depth: int = 28
    memory_widen: int = 10
    memory_batch: int = 128
    contest_estimates: int = 100
    contest_steps: int = 60
    contest_runs: int = 2
    scaling_batch: int = 16
    scaling_values: int = 4
    scaling_pairs: int = 4


QUICK = Preset()
PRESETS = {
    "smoke": replace(
        QUICK,
        epochs=2, seeds=1, steps=24, ride=4, estimates=20, budget=60, references=4, toy_steps=100, toy_estimates=2000,
        polynomial_steps=40, vae_steps=40, vae_estimates=100,
        overhead_depth=10, overhead_widen=1, overhead_pairs=3, scaling_values=2, scaling_pairs=2,
        contest_estimates=12, contest_steps=4,
    ),
    "quick": QUICK,
    "cpu": replace(
        QUICK,
        dataset="cifar10", depth=16, epochs=4, batch_size=128, seeds=2, phi_lr=0.02, gamma=0.05, bf16=True,
        estimates=400, width_step=4, steps=600, budget=3000, references=400, overhead_widen=4, overhead_batch=128,
        overhead_pairs=12, overhead_seconds=60.0, toy_steps=10_000, toy_estimates=1_000_000, polynomial_steps=8000,
        vae_steps=50_000, vae_estimates=20_000, scaling_batch=64, scaling_values=5, scaling_pairs=8,
        contest_estimates=160, contest_steps=100,
    ),
    "paper": replace(
        QUICK,
        dataset="cifar10", depth=28, widen=10, width_step=1, epochs=200, batch_size=128, seeds=5, phi_lr=0.01,
        estimates=400, penalty="literal", bf16=True, compile=True, steps=20_000, budget=20_000, references=2000,
        overhead_depth=28, overhead_widen=10, overhead_batch=128, overhead_pairs=12, overhead_seconds=60.0,
        toy_steps=10_000, toy_estimates=1_000_000, polynomial_steps=8000, vae_steps=500_000, vae_estimates=20_000,
        scaling_batch=128, scaling_values=5, scaling_pairs=8, contest_estimates=400, contest_steps=1000,
    ),
}  # fmt: skip
_LEAST = {"contest_runs": 1, "scaling_batch": 1, "scaling_values": 2, "scaling_pairs": 2}  # of the others, 0


def resolve(name: str, settings: Sequence[str] = ()) -> Preset:
    """A preset with `key=value` overrides.

    Raises:
        ValueError: unknown preset or key (with the nearest), or a value of another type than the default's.
    """
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}{nearest(name, PRESETS)}; there are {', '.join(PRESETS)}")
    preset = PRESETS[name]
    if name == "cpu" and not _native_bf16():
        preset = replace(preset, bf16=False)
    if preset.compile and not torch.cuda.is_available():
        preset = replace(preset, compile=False)
    known = {field.name: type(getattr(preset, field.name)) for field in fields(Preset)}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if key not in known:
            raise ValueError(f"no setting {key!r}{nearest(key, known)}; there are {', '.join(known)}")
        if not equals:
            raise ValueError(f"a setting must read KEY=VALUE, got {setting!r}")
        preset = replace(preset, **{key: _convert(key, text, known[key])})
    return preset


def _native_bf16() -> bool:
    """Whether this processor computes in bfloat16 by itself; emulated, it takes twelve times as long as float32."""
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


def _convert(key: str, text: str, kind: type) -> Any:
    if kind is str:
        return text
    try:
        value = ast.literal_eval(text.capitalize() if text in ("true", "false") else text)
    except (ValueError, SyntaxError):
        value = text
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ValueError(f"setting {key} must be {kind.__name__}, got {text!r}")
    if isinstance(value, int | float) and not value >= 0:
        raise ValueError(f"setting {key} must not be negative, got {text!r}")
    if isinstance(value, int) and value < _LEAST.get(key, 0):
        raise ValueError(f"setting {key} must be at least {_LEAST[key]}, got {text!r}")
    return value


def select(preset: Preset, names: Sequence[str]) -> dict[str, Any]:
    """The fields that a cell depends on; a newer one that is off is none, as for cells older than it."""
    values = asdict(preset)
    return {name: values[name] for name in names if name not in ("target_macs", "compile") or values[name]}


def described(preset: Preset, name: str, names: Sequence[str]) -> str:
    """`quick`, or `quick[gamma=0.1]` where one of the fields `names` is not that preset's own."""
    own, base = asdict(preset), asdict(PRESETS[name])
    changed = [f"{key}={own[key]!r}" for key in sorted(names) if own[key] != base[key]]
    return f"{name}[{', '.join(changed)}]" if changed else name


def nearest(name: str, names: Any) -> str:
    """`, did you mean 'x'?`, or nothing."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f", did you mean {close[0]!r}?" if close else ""
