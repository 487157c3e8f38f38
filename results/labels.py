"""Names beside the series that they are of, without two on top of each other.

Both functions fix the layout of the figure, because only then is it known where a point is on the page. Whatever needs
room in that layout has to be there before.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox, Transform

SIZE = 8.5  # points
_AWAY = 13.0  # points from the end of a curve to its name
_NEAR = 7.0  # points from a marker's middle to its name
_RADII = (_NEAR, 14.0, 24.0, 36.0, 50.0, 66.0, 84.0, 104.0, 128.0)
_ANGLES = np.radians([0, 180, 30, -30, 150, -150, 90, -90, 60, -60, 120, -120])
_GAP = 1.5  # pixels between two names
_STEP = 6.0  # pixels
_HALO = [withStroke(linewidth=2, foreground="white", alpha=0.85)]


class Named(NamedTuple):
    """A series: the point that its name belongs to, in data coordinates, and how the name is written."""

    ax: Axes
    x: float
    y: float
    text: str
    colour: str


def settle(figure: Figure) -> None:
    """Lay out the figure, once."""
    engine = figure.get_layout_engine()
    if engine is not None:
        for ax in figure.axes:
            ax.get_xlim(), ax.get_ylim()  # which autoscaling waits for
        engine.execute(figure)
        figure.set_layout_engine("none")


def at_ends(figure: Figure, series: Sequence[Named]) -> None:
    """Names at the right of curves, moved apart where curves end together and joined to their ends."""
    made = [(one, _annotate(one, (1.0, one.y), one.ax.get_yaxis_transform(), (_AWAY, 0), "left")) for one in series]
    for one in series:
        one.ax.autoscale_view()  # ticks may have widened the axes, and the lines drawn below would undo that
    settle(figure)
    for ax in {one.ax: None for one in series}:
        here = [(one, label) for one, label in made if one.ax is ax]
        sizes = [label.get_window_extent().height + _GAP for _, label in here]
        wanted = [float(ax.transData.transform((one.x, one.y))[1]) for one, _ in here]
        placed = within(apart(wanted, sizes), sizes, *ax.get_window_extent().intervaly)
        for (one, label), old, new in zip(here, wanted, placed, strict=True):
            label.set_position((_AWAY, (new - old) * 72 / figure.dpi))
            edge, step = ax.get_window_extent().x1, figure.dpi / 72
            ends = [(edge + 2 * step, old), (edge + (_AWAY - 2) * step, new)]
            across, up = ax.transAxes.inverted().transform(ends).T
            ax.plot(across, up, color=one.colour, lw=0.7, alpha=0.7, transform=ax.transAxes, clip_on=False)


def at_points(figure: Figure, series: Sequence[Named]) -> None:
    """Names beside points, clear of what else the axes hold where they can be, and joined to their points by a line
    where there is no room near by."""
    settle(figure)
    for ax in {one.ax: None for one in series}:
        here = [one for one in series if one.ax is ax]
        points = np.array([ax.transData.transform((one.x, one.y)) for one in here])
        marks = _marks(ax)
        crowd = np.linalg.norm(points[:, None] - points[None], axis=-1).sum(1)
        taken: list[Bbox] = []
        for i in np.argsort(-crowd, kind="stable"):  # those at the edge first: they have the most room
            taken.append(_place(here[i], points[i], taken, marks, figure.dpi / 72))


def _marks(ax: Axes) -> np.ndarray:
    """Pixels, (n, 2), that the lines and the markers of some axes pass."""
    found = [np.empty((0, 2))]
    for line in ax.lines:
        ends = line.get_transform().transform(line.get_xydata())
        found.append(ends)
        for start, end in itertools.pairwise(ends):
            if not np.isfinite([start, end]).all():
                continue
            steps = min(400, int(np.hypot(*(end - start)) / _STEP))
            found.append(start + (end - start) * np.linspace(0, 1, steps + 2)[1:-1, None])
    return np.concatenate(found)


def _place(one: Named, point: np.ndarray, taken: Sequence[Bbox], marks: np.ndarray, scale: float) -> Bbox:
    label = _annotate(one, (one.x, one.y), one.ax.transData, (0, 0), "center")
    size = label.get_window_extent()
    inside, best = one.ax.get_window_extent(), None
    for radius in _RADII:
        for turn, angle in enumerate(_ANGLES):
            way = np.array([np.cos(angle), np.sin(angle)])
            middle = point + radius * scale * way + way * (size.width / 2, size.height / 2)
            box = Bbox.from_bounds(middle[0] - size.width / 2, middle[1] - size.height / 2, size.width, size.height)
            outside = max(inside.x0 - box.x0, box.x1 - inside.x1, inside.y0 - box.y0, box.y1 - inside.y1, 0)
            near = box.padded(2)
            covered = ((marks > near.min) & (marks < near.max)).all(1).sum()
            clash = sum(box.padded(_GAP).overlaps(other) for other in taken)
            cost = 1e6 * clash + 30 * outside + 4 * min(covered, 20) + radius + turn / 10
            if best is None or cost < best[0]:
                best = cost, middle, box, radius
    assert best is not None
    _, middle, box, radius = best
    label.set_position(tuple((middle - point) / scale))
    if radius > _NEAR:
        nearest = np.clip(point, box.min, box.max)
        ends = one.ax.transData.inverted().transform([point, nearest])
        limits = one.ax.axis()
        one.ax.plot(ends[:, 0], ends[:, 1], color=one.colour, lw=0.7, alpha=0.7, zorder=2.5)
        one.ax.axis(limits)
    return box


def _annotate(
    one: Named, at: tuple[float, float], system: Transform, offset: tuple[float, float], side: str
) -> Annotation:
    label = one.ax.annotate(
        one.text, at, offset, xycoords=system, textcoords="offset points", ha=side, va="center", fontsize=SIZE,
        color=one.colour, linespacing=1.0, annotation_clip=False, zorder=4,
        path_effects=_HALO,
    )  # fmt: skip
    label.set_gid("series")
    return label


def apart(positions: Sequence[float], sizes: Sequence[float]) -> np.ndarray:
    """The same positions in the same order, moved so that things of these sizes about them do not overlap."""
    order = np.argsort(positions, kind="stable")
    placed, size = np.asarray(positions, float)[order], np.asarray(sizes, float)[order]
    gap = (size[1:] + size[:-1]) / 2
    # Those that touch are a group about the mean of where they want to be; merged until no two groups touch.
    offset = np.concatenate([[0.0], np.cumsum(gap)])
    groups = [[i] for i in range(len(placed))]
    i = 0
    while i + 1 < len(groups):
        first, second = (float(np.mean(placed[g] - offset[g])) for g in groups[i : i + 2])
        if second >= first - 1e-9:
            i += 1
        else:
            groups[i : i + 2] = [groups[i] + groups[i + 1]]
            i = max(0, i - 1)
    result = np.empty(len(placed))
    for group in groups:
        result[order[group]] = np.mean(placed[group] - offset[group]) + offset[group]
    return result


def within(placed: np.ndarray, sizes: Sequence[float], low: float, high: float) -> np.ndarray:
    """All of them moved up where the lowest is below `low`, or else down where the highest is above `high`."""
    half = np.asarray(sizes) / 2
    below, above = low - float((placed - half).min()), float((placed + half).max()) - high
    return placed + max(0.0, below) if below > 0 else placed - max(0.0, above)
