"""Carry rows of schema 1 over to schema 2: every cell's identity is computed anew from what its rows say of it.

A cell of schema 1 says its suite, task, label, seed, device and the settings that it was known to depend on, under flat
names. Each setting is put where it stands now; a setting that the cell did not record takes the value of its preset,
and is counted in the report. Rows are dropped, and named, where what they do not say cannot be known.
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from results import table
from suites import presets, suite
from suites.engine.cell import Cell, Workshop, digest
from suites.engine.plan import make_cell
from suites.labels import parse
from suites.tasks.base import Context

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
NO_PART = {"variance": {"truth.minibatches", "truth.enumerate"}}
"""What cells of schema 1 named and no number of theirs depends on."""
OF_SUITE = {("contest", "overhead_pairs"): "contest.pairs", ("scaling", "budget"): "scaling.budget"}


def place(key: str, task: str, of: str) -> str:
    """The dotted name of a setting of schema 1."""
    if key in OF_TASK:
        return OF_TASK[key][0 if task in FUNCTIONS else 1 if task == "vae" else 2]
    return OF_SUITE.get((of, key)) or COMMON[key]


def patience(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The time limit of a timing, which schema 1 did not record, where it may have counted: from the code of then."""
    of, commit, wall = rows[0]["cell"]["suite"], rows[0]["provenance"]["commit"], rows[0]["provenance"]["wall_s"]
    if of not in ("overhead", "scaling", "contest"):
        return {}
    code = subprocess.run(
        ["git", "show", f"{commit}:suites/overhead.py"], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"^PATIENCE = ([0-9.]+)", code, re.MULTILINE)
    if found is None or (of == "overhead" and wall < min(5.0, float(found[1]))):  # a preset's, or never reached
        return {}
    return {f"{of}.seconds": float(found[1])}


def cell_of(rows: list[dict[str, Any]], shops: Mapping[str, Workshop]) -> tuple[Cell, list[str]]:
    """A cell of schema 1 as one of schema 2, and the settings of it that schema 1 did not record."""
    old = rows[0]["cell"]
    settings = {key: value for key, value in old["settings"].items() if key != "device"}
    given = {place(key, old["task"], old["suite"]): value for key, value in settings.items()} | patience(rows)
    base = old["preset"].partition("[")[0]
    asked = presets.resolve(base)
    asked = asked.with_(dict.fromkeys(asked.changed, True))  # what this machine cannot do, another could
    shop = shops[old["dataset"]]
    shop.context = replace(shop.context, device=torch.device(old["settings"].get("device", "cpu")))
    task, of, label = shop.task(old["task"], torch.device("cpu")), suite.get(old["suite"]), parse(old["estimator"])
    cell = make_cell(shop, asked.with_(given), task, of, label, old["seed"])
    made = {f"{group}.{name}": value for group, values in cell.settings.items() for name, value in values.items()}
    for name, value in given.items():
        if name in made and str(made[name]) != str(parse_weights(name, value)):
            raise ValueError(f"{name} is {made[name]!r} and was {value!r}")
    lost = set(given) - set(made) - NO_PART.get(old["suite"], set())
    if label.name != "plain" and lost:
        raise ValueError(f"no place for {', '.join(sorted(lost))}")
    return replace(cell, task_version=old["task_version"]), sorted(set(made) - set(given))


def parse_weights(name: str, value: Any) -> Any:
    """What the weights train on, as it is written now."""
    return str(parse(value)) if name == "train.weights" and value != "own" else value


def foreign(old: Mapping[str, Any]) -> dict[str, Any]:
    """The cell of a script, whose estimator is another library's or none."""
    settings = {key: value for key, value in old["settings"].items() if key != "device"}
    cell = {
        "suite": old["suite"], "suite_version": 1, "task": old["task"], "task_version": old["task_version"],
        "name": old["estimator"], "options": {}, "estimator_version": old["estimator_version"], "uses": {},
        "data": None, "seed": old["seed"], "device": str(settings.pop("device", "cpu")),
        "settings": {old["preset"] if old["preset"] == "loop" else "library": settings},
    }  # fmt: skip
    called = {"estimator": old["estimator"], "preset": old["preset"], "preset_name": old["preset"], "changed": {}}
    return {**cell, **called, "dataset": "none", "data_note": ""}


def versions_then(cell: Cell, commit: str) -> str | None:
    """Whether an estimator that was used had another version at the commit of a row; None if all are the same."""
    for name, now in cell.uses:
        module = parse(name).name
        shown = subprocess.run(
            ["git", "show", f"{commit}:estimators/{module}.py"], capture_output=True, text=True, check=True
        ).stdout
        found = next((line for line in shown.splitlines() if line.strip().startswith("version = ")), "version = 1")
        if int(found.split("=")[1]) != now:
            return f"used {name} of version {found.split('=')[1].strip()}, which has version {now} now"
    return None


def migrate(source: Path, target: Path, shops: Mapping[str, Workshop]) -> list[str]:
    """Write the rows of `source` to `target`; the lines of the report."""
    counts: collections.Counter[str] = collections.Counter()
    filled: collections.Counter[str] = collections.Counter()
    relabelled: collections.Counter[str] = collections.Counter()
    dropped: list[str] = []
    written: dict[str, list[dict[str, Any]]] = {}
    files = {
        path: [json.loads(line) for line in path.read_text("utf-8").splitlines()] for path in source.glob("*.jsonl")
    }
    # of one run under several labels, that of the shortest is kept
    for path, rows in sorted(files.items(), key=lambda pair: (len(pair[1][0]["cell"]["preset"]), pair[0])):
        old, provenance = rows[0]["cell"], rows[0]["provenance"]
        about = f"{path.stem} {old['suite']} {old['task']} {old['estimator']} {old['preset']} seed {old['seed']}"
        try:
            if old["suite"] == "loop" or " of " in old["estimator"]:
                cell = foreign(old)
                name = digest({"schema": table.SCHEMA, **{k: v for k, v in cell.items() if k in IDENTITY}})
            else:
                made, missing = cell_of(rows, shops)
                if reason := versions_then(made, provenance["commit"]):
                    raise ValueError(reason)
                if made.label.version != old["estimator_version"]:
                    raise ValueError(f"of version {old['estimator_version']} of the estimator")
                cell, name = made.described(), made.hash
                filled.update(f"{old['suite']}: {one} = {dict_of(cell, one)!r}" for one in missing)
                if cell["preset"].partition("[")[0] != old["preset"].partition("[")[0] or (
                    ("[" in cell["preset"]) != ("[" in old["preset"])
                ):
                    relabelled[f"{old['suite']} {old['task']}: {old['preset']} -> {cell['preset']}"] += 1
        except ValueError as error:
            dropped.append(f"{about}: {error}")
            continue
        if name in written:
            same = _values(rows) == _values(written[name])
            dropped.append(
                f"{about}: the same run as {written[name][0]['hash']}, {'equal' if same else 'OTHER'} values"
            )
            continue
        written[name] = rows
        table.write(target, name, [{**row, "schema": table.SCHEMA, "hash": name, "cell": cell} for row in rows])
        counts[old["suite"]] += 1
    return [
        f"carried over: {sum(counts.values())} cells ({', '.join(f'{n} {k}' for k, n in sorted(counts.items()))})",
        f"dropped: {len(dropped)}", *(f"  {line}" for line in dropped),
        "settings that schema 1 did not record, taken from the preset:",
        *(f"  {n:4d} cells  {k}" for k, n in sorted(filled.items())),
        "labels of presets that changed:", *(f"  {n:4d} cells  {k}" for k, n in sorted(relabelled.items())),
    ]  # fmt: skip


def _values(rows: list[dict[str, Any]]) -> list[Any]:
    return [(row["metric"], row["part"], row["point"], row["x"], row["value"]) for row in rows]


IDENTITY = (
    "suite", "suite_version", "task", "task_version", "name", "options", "estimator_version", "uses", "data", "seed",
    "device", "settings",
)  # fmt: skip


def dict_of(cell: Mapping[str, Any], dotted: str) -> Any:
    """The value of a dotted setting of a described cell."""
    group, _, name = dotted.partition(".")
    return cell["settings"][group][name]


def main() -> int:
    """Migrate and print the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    shops = {name: Workshop(Context(name), Path()) for name in ("digits", "cifar10")}
    shops["none"] = shops["digits"]
    print("\n".join(migrate(args.source, args.target, shops)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
