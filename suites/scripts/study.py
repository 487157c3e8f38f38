"""The study: every run of `results.study_design`, with the engine of `python -m suites.run`.

Finished cells are not run again, and an interrupted run resumes from its checkpoint. So repeating the command continues
the study. Seed 0 of all arms of a part comes first, then seed 1, and so on: a study that is stopped early has all arms
with fewer seeds.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jsonargparse import Namespace

from estimators.options import nearest
from results import table
from results.study_design import PARTS, PRESET, Arm
from suites import presets
from suites.commands import asked, planned, tables
from suites.engine.cell import Workshop
from suites.engine.plan import Planned, plan, prepare
from suites.engine.progress import Level, Progress
from suites.engine.schedule import sweep
from suites.labels import PLAIN, parse


def run(
    parts: Sequence[str],
    out: Path,
    *,
    place: Namespace,
    seeds: int | None,
    dry_run: bool,
    commands: bool,
    overwrite: str,
    level: Level,
) -> int:
    """Run parts of the study, or print them. Returns the exit status: 0, or 1 if a cell failed with an error.

    Args:
        parts: names from `PARTS`; empty: all.
        out: the folder for everything that is written.
        place: where to run: `data_root`, `device`, `workers` and `launcher`, as for `suites.run`.
        seeds: most runs of each arm; None: as many as it declares.
        dry_run: print the cells and run nothing.
        commands: print a command for each arm and run nothing.
        overwrite: which finished cells to run again: "never", "failed" or "always".
        level: how much progress to print.

    Raises:
        ValueError: unknown part, or missing data.
    """
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"no part {part!r}{nearest(part, PARTS)}; there are {', '.join(PARTS)}")
    arms = [(part, arm) for part in parts or PARTS for arm in PARTS[part]()]
    if commands:
        for _, arm in arms:
            tables.say(command(arm))
        return 0
    failures = 0
    for dataset in dict.fromkeys(
        arm.dataset for _, arm in arms
    ):  # one data set after the other, because a workshop holds one
        mine = [(part, arm) for part, arm in arms if arm.dataset == dataset]
        with Progress(level) as progress:
            context, executor = asked.place(Namespace(**vars(place), dataset=dataset, preset=PRESET))
            shop = Workshop(replace(context, progress=progress.detail), out)
            found = _cells(shop, mine, out / "rows", seeds, overwrite)
            if dry_run:
                tables.say(f"{dataset}:")
                planned.show(found, table.read(out / "rows"))
                continue
            asked.check_writable(out)
            prepare(shop, found, torch.device("cpu") if place.launcher == "ray" else None)
            failures += sum(item.kept == "error" for item in found)
            progress.begin(found)
            for done in sweep(found, shop, out / "rows", executor):
                failures += done.status == "error"
                progress.finished(done)
    return 1 if failures else 0


def command(arm: Arm) -> str:
    """The command that measures one arm."""
    words = ["python", "-m", "suites.run", "--preset", PRESET, "--suite", *arm.suites, "--dataset", arm.dataset]
    words += ["--task", arm.task, "--seeds", str(arm.seeds), "--estimator", arm.estimator]
    settings = [f"{name}={value}" for name, value in arm.changed.items()]
    return shlex.join([*words, *(["--set", *settings] if settings else [])])


def _cells(
    shop: Workshop, arms: Sequence[tuple[str, Arm]], rows: Path, seeds: int | None, overwrite: str = "never"
) -> list[Planned]:
    """Every cell once: by part, then by seed, then in the order of the arms."""
    found: dict[str, tuple[tuple[int, int, int], Planned]] = {}
    order = {part: at for at, part in enumerate(dict.fromkeys(part for part, _ in arms))}
    for at, (part, arm) in enumerate(arms):
        preset = presets.resolve(PRESET, [f"{name}={value}" for name, value in arm.changed.items()])
        count = arm.seeds if seeds is None else min(seeds, arm.seeds)
        label = parse(arm.estimator)
        for item in plan(shop, preset, [arm.task], [label], list(arm.suites), rows, seeds=count, overwrite=overwrite):
            if item.cell.label.name == PLAIN and label.name != PLAIN:
                continue  # plain training is a separate arm
            place = (order[part], item.cell.seed, at)
            if item.cell.hash not in found or place < found[item.cell.hash][0]:
                found[item.cell.hash] = (place, item)
    return [item for _, item in sorted(found.values(), key=lambda pair: pair[0])]
