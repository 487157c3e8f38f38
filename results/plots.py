"""Table to figures. Every figure is a function of the frame that ``table.read`` gives, and None where it has no rows.

Figures are made from ``matplotlib.figure.Figure`` and never from pyplot, so that drawing leaves nothing behind; the
same rows give the same bytes.
"""

import io
import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from results import parallel, summary
from results.figures_contest import frontier_of_error
from results.figures_cost import memory, overhead
from results.figures_gradient import bias_variance, frontier
from results.figures_overview import of_quantities, overview
from results.figures_scaling import scaling_memory, scaling_time
from results.figures_temperature import concrete_widths, temperature
from results.figures_training import accuracy_macs, accuracy_parameters, block_widths, curves, objective

FIGURES: dict[str, Callable[[pd.DataFrame], Figure | None]] = {
    "overview": overview,
    "contest": frontier_of_error,
    "bias_variance": bias_variance,
    "frontier": frontier,
    "temperature": temperature,
    "memory": memory,
    "overhead": overhead,
    "scaling_time": scaling_time,
    "scaling_memory": scaling_memory,
    "accuracy_parameters": accuracy_parameters,
    "accuracy_macs": accuracy_macs,
    "block_widths": block_widths,
    "curves": curves,
    "objective": objective,
    "concrete_widths": concrete_widths,
}


_SHOWS: dict[str, dict[str, tuple[str, ...]]] = {
    "contest": {"suite": ("contest",)},
    "bias_variance": {"metric": ("bias_sq",)},
    "frontier": {"metric": ("variance",)},
    "temperature": {"metric": ("bias_sq",)},
    "memory": {"suite": ("memory",)},
    "overhead": {"suite": ("overhead",)},
    "scaling_time": {"suite": ("scaling",)},
    "scaling_memory": {"suite": ("scaling",)},
    "accuracy_parameters": {"metric": ("accuracy",)},
    "accuracy_macs": {"metric": ("accuracy",)},
    "block_widths": {"metric": ("block_width",), "task": ("width", "joint")},
    "curves": {"metric": ("curve_width", "curve_depth", "curve_entropy")},
    "objective": {"metric": ("curve_objective", "curve_elbo")},
    "concrete_widths": {"suite": ("sampling",)},
}
"""Of which rows a figure is, by column, where it is not of all; for the page of a task that it belongs on."""
TALL = ("bias_variance", "frontier", "memory", "overhead", "scaling_time", "scaling_memory", "objective")
"""Figures with something for every estimator of every task: one for each task where there are more than `TASKS`."""
TASKS = 4
_UNREAD = (
    "suite_version", "task_version", "changed", "settings", "message", "device", "dtype", "commit", "dirty", "wall_s",
    "python", "torch", "numpy",
)  # fmt: skip
"""Columns that no figure reads."""
LONGEST = 120  # characters of the part of a file's name that says of which preset, data set and task a figure is


class Drawn(NamedTuple):
    """A figure that was drawn: its name among `FIGURES`, its file, the tasks in it, the number of estimators that
    were measured with what it shows, their cells, and a note on its data."""

    kind: str
    path: Path
    tasks: frozenset[str]
    estimators: int
    cells: frozenset[str]
    note: str


def draw_all(frame: pd.DataFrame, directory: str | Path, first: pd.DataFrame | None = None) -> dict[str, Drawn]:
    """Draw every figure that has rows as ``directory/<name>.png``, and return what was drawn by name.

    Presets and data sets are not mixed in one figure, but for the overview, which says what it takes from where: where
    a figure has several, each is ``<name>-<preset>-<dataset>``. The overview is of the rows ``first``, if given.
    """
    frame = _narrow(frame)
    first = frame if first is None else _narrow(first)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    many = frame["task"].nunique() > TASKS
    parts = {by: _parts(frame, [*summary.CONTEXT, "task"] if by else summary.CONTEXT) for by in (True, False)}
    by_task = {name: (many and name in TALL) or name == "contest" for name in FIGURES if name != "overview"}
    wanted = [(name, part) for name, of_task in by_task.items() for part in parts[of_task]]
    tasks = ("width", *sorted(set(frame["task"]) - {"width"}))
    overviews = parallel.each([partial(_overview, first, task, directory) for task in tasks])
    drawn = {one.path.stem: one for one in overviews if one is not None}
    # most of these are of nothing, and return at once
    files = parallel.each([partial(_png, FIGURES[name], part) for name, part in wanted], few=20)
    figures = [(name, part, file) for (name, part), file in zip(wanted, files, strict=True) if file]
    counts = Counter(name for name, _, _ in figures)
    for name, part, file in figures:
        label = summary.context_label(part) + (f" {part['task'].iloc[0]}" if by_task[name] else "")
        full = name if counts[name] == 1 else f"{name}-{_slug(label)}"
        rows = part
        for column, values in _SHOWS.get(name, {}).items():
            rows = rows[rows[column].isin(values)]
        path = directory / f"{full}.png"
        path.write_bytes(file)
        drawn[full] = _drawn(name, path, rows)
    return drawn


def _overview(first: pd.DataFrame, task: str, directory: Path) -> Drawn | None:
    """Draw the overview of a task; that of the width task, which the paper is about, has the plain name."""
    quantities = summary.quantities(first, task)
    figure = of_quantities(quantities, task)
    if figure is None:
        return None
    path = directory / ("overview.png" if task == "width" else f"overview-{task}.png")
    return _drawn("overview", save(figure, path), _compared(first, task, quantities))


def _png(draw: Callable[[pd.DataFrame], Figure | None], part: pd.DataFrame) -> bytes | None:
    """A figure as the bytes of its file."""
    figure = draw(part)
    return None if figure is None else png(figure)


def _drawn(kind: str, path: Path, rows: pd.DataFrame) -> Drawn:
    shown = frozenset(rows["task"]), rows["estimator"].nunique(), frozenset(rows["hash"])
    return Drawn(kind, path, *shown, summary.data_notes(rows))


def _parts(frame: pd.DataFrame, by: list[str]) -> list[pd.DataFrame]:
    return [part for _, part in frame.groupby(by, dropna=False)]


def _narrow(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows without columns that no figure reads and every choice among rows would copy."""
    return frame.drop(columns=list(_UNREAD), errors="ignore")


def _compared(frame: pd.DataFrame, task: str, quantities: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The rows of the presets and data sets that the overview of a task takes something from."""
    used = pd.concat([rows[summary.CONTEXT] for rows in quantities.values()]).drop_duplicates()
    return frame[frame["task"] == task].merge(used, on=summary.CONTEXT)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as a PNG. The same figure gives the same bytes."""
    path.write_bytes(png(figure))
    return path


def png(figure: Figure) -> bytes:
    """A PNG without the version and the date that would make its bytes differ.

    Not by `savefig`, which draws everything once more, for the layout.
    """
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
    return file.getvalue()


def _slug(text: str) -> str:
    """Part of a file's name; one that would be too long ends in its hash."""
    slug = re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")
    return slug if len(slug) <= LONGEST else f"{slug[:LONGEST]}-{blake2b(text.encode(), digest_size=4).hexdigest()}"
