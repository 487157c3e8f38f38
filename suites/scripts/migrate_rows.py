"""Carry rows of schema 1 over to schema 2: every cell's identity is computed anew from what its rows say of it.

A cell of schema 1 says its suite, task, label, seed, device and the settings that it was known to depend on, under flat
names. Each setting is put where it stands now; a setting that the cell did not record takes the value of its preset,
and is counted in the report. Rows are dropped, and named, where what they do not say cannot be known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from suites import presets, suite
from suites.engine.cell import Cell, Workshop
from suites.engine.plan import make_cell
from suites.labels import parse
from vmo.identity import Identity

FUNCTIONS = ("toy", "quadratic", "multilinear", "polynomial")
COMMON = {
    "latents": "vae.latents", "categories": "vae.categories", "vae_layers": "vae.layers", "vae_hidden": "vae.hidden",
    "vae_steps": "vae.steps", "vae_lr": "vae.lr", "vae_estimates": "vae.estimates", "toy_steps": "function.steps",
    "toy_estimates": "function.estimates", "polynomial_power": "polynomial.power",
    "polynomial_categories": "polynomial.categories", "polynomial_steps": "polynomial.steps",
    "depth": "network.depth", "widen": "network.widen", "width_step": "network.width_step", "epochs": "train.epochs",
    "lr": "train.lr", "phi_lr": "train.phi_lr", "phi_optimizer": "train.phi_optimizer", "bf16": "train.bf16",
    "compile": "train.compile", "freeze": "train.freeze", "weights": "train.weights", "penalty": "penalty.kind",
    "gamma": "penalty.gamma", "target_macs": "penalty.target_macs", "steps": "trajectory.steps",
    "estimates": "gradient.estimates", "budget": "gradient.budget", "references": "truth.minibatches",
    "enumerate": "truth.enumerate", "overhead_depth": "timed.depth", "overhead_widen": "timed.widen",
    "overhead_batch": "timed.batch", "overhead_pairs": "overhead.pairs", "memory_depth": "counted.depth",
    "memory_widen": "counted.widen", "memory_batch": "counted.batch", "contest_estimates": "contest.estimates",
    "contest_steps": "contest.steps", "contest_runs": "contest.runs", "scaling_batch": "scaling.batch",
    "scaling_values": "scaling.values", "scaling_pairs": "scaling.pairs",
}  # fmt: skip
OF_TASK = {"ride": ("function.ride", "vae.ride", "trajectory.ride"),
           "control_lr": ("function.control_lr", "vae.control_lr", "train.control_lr"),
           "batch_size": ("", "vae.batch_size", "train.batch_size")}  # fmt: skip
OF_SUITE = {("contest", "overhead_pairs"): "contest.pairs", ("scaling", "budget"): "scaling.budget"}


def place(key: str, task: str, of: str) -> str:
    """The dotted name of a setting of schema 1."""
    if key in OF_TASK:
        return OF_TASK[key][0 if task in FUNCTIONS else 1 if task == "vae" else 2]
    return OF_SUITE.get((of, key)) or COMMON[key]


def data_of(name: str, known: Mapping[str, Identity]) -> Identity | None:
    """The data that rows of schema 1 call by a name."""
    return None if name == "none" else known[name]


def cell_of(old: Mapping[str, Any], shops: Mapping[str, Workshop], known: Mapping[str, Identity]) -> Cell:
    """A cell of schema 1 as one of schema 2."""
    settings = {key: value for key, value in old["settings"].items() if key != "device"}
    given = {place(key, old["task"], old["suite"]): value for key, value in settings.items()}
    base = old["preset"].partition("[")[0]
    groups = {name: type(group) for name, group in presets.resolve(base).groups.items()}
    preset = presets.settings.resolve(base, groups.values()).with_(
        {name: getattr(kind.at(base), field) for name, kind, field in _asked(groups, base)} | given
    )
    shop = shops[old["settings"].get("device", "cpu")]
    task, of, label = shop.task(old["task"]), suite.get(old["suite"]), parse(old["estimator"])
    known_name = old["dataset"] if old["dataset"] != "none" else "digits"
    task.__dict__["_migrated"] = known[known_name]
    cell = make_cell(shop, preset, task, of, label, old["seed"])
    return replace(cell, data=None if cell.data is None else known[known_name], task_version=old["task_version"])


def _asked(groups: Mapping[str, Any], base: str) -> list[tuple[str, Any, str]]:
    """What a preset asks for, whether this machine can do it or not."""
    return [(f"{n}.{field}", kind, field) for n, kind in groups.items() for field in kind.impossible(base)]
