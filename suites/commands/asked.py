"""Turns the parsed command line into a preset, labels, suites, and the place where cells run."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from suites.commands import listing, source
from suites.commands.command import notice

if TYPE_CHECKING:
    import torch

    from suites.engine.plan import Planned
    from suites.settings import Preset
    from suites.tasks.base import Context


def preset(args: Namespace) -> Preset:
    """The preset with all changes from the command line. Raises ValueError, see `suites.presets.resolve`."""
    from suites import presets

    given = [] if args.target_macs is None else [f"penalty.target_macs={args.target_macs}"]
    return presets.resolve(args.preset, [*args.set, *given])


def labels(args: Namespace) -> list[Any]:
    """The requested labels, with "all" expanded. Raises ValueError for unknown names, of tasks too."""
    from suites import tasks
    from suites.labels import parse

    names = dict.fromkeys([*args.estimator, *(args.compare or [])])
    spelt = [one for name in names for one in (source.estimators() if name == "all" else (name,))]
    found = [parse(name) for name in spelt]
    for name in args.task:
        tasks.factory(name)
    return found


def suites(args: Namespace) -> list[str]:
    """The names of the suites. Prints a notice if none of them uses `--seeds`."""
    from suites import suite
    from suites.engine.plan import suite_names

    names = suite_names(args.suite)
    if args.seeds is not None and not any(suite.get(name).seeds for name in names):
        repeated = [name for name in suite.available() if suite.get(name).seeds]
        notice(f"--seeds is ignored: only {' and '.join(repeated)} repeat over seeds, not {', '.join(names)}", args)
    return names


def notice_unused(args: Namespace, preset: Preset, found: Sequence[Planned]) -> None:
    """Print a notice about changed settings that no cell depends on."""
    from suites.settings import dotted, parse

    given = {*parse(args.set), *(["penalty.target_macs"] if args.target_macs is not None else [])}
    read = {name for item in found for name in dotted(item.cell.settings)}
    if unused := [name for name in preset.changed if name in given - read]:
        notice(f"no requested cell depends on {', '.join(unused)}", args)


def check_possible(found: Sequence[Planned]) -> None:
    """Raise ValueError if there is only one requested estimator and it cannot be measured at all."""
    from suites.labels import BASELINES

    own = [item for item in found if item.cell.label.name not in BASELINES]
    reasons = [item.impossible for item in own]
    if own and all(reasons) and len({item.cell.label for item in own}) == 1:
        raise ValueError(reasons[0])


def place(args: Namespace) -> tuple[Context, Any]:
    """The context of the tasks, and the executor that runs cells."""
    from estimators.options import nearest
    from suites import presets
    from suites.engine import on_ray
    from suites.engine.local import InProcess, LocalProcesses
    from suites.tasks.base import Context

    known = listing.names("datasets")
    if args.dataset is not None and not args.dataset.endswith(".npz") and args.dataset not in known:
        raise ValueError(f"no data set {args.dataset!r}{nearest(args.dataset, known)}; there are {', '.join(known)}")
    ray = args.launcher == "ray"
    if ray:
        if args.workers != 1:
            raise ValueError("--workers needs --launcher local: a Ray cluster runs as many cells as it has room for")
        on_ray.connect()
    context = Context(args.dataset or presets.DATASETS[args.preset], args.data_root, _device(args.device, ray))
    return context, on_ray.OnRay() if ray else InProcess() if args.workers == 1 else LocalProcesses(args.workers)


def _device(name: str, on_ray: bool) -> torch.device:
    import torch

    from suites.engine import on_ray as ray_launcher

    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"--device must be auto, cpu or cuda, got {name!r}")
    there = name != "cpu" and (ray_launcher.has_gpu() if on_ray else torch.cuda.is_available())
    if name == "cuda" and not there:
        where = "the Ray cluster has no GPU" if on_ray else "this machine has no CUDA device"
        raise ValueError(f"--device cuda: {where} that PyTorch can use")
    return torch.device("cuda" if there else "cpu")


def check_writable(out: Path) -> None:
    """Create the folder. Raises ValueError if it cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ValueError(f"--out {out} cannot be written: {error.strerror}") from None
