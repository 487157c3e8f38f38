"""The page of the documentation with all published numbers, in Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence

from suites.commands.tables import spoken
from suites.scripts.published.experiment import KNOWN, Experiment
from suites.scripts.published.line import TOO_WIDE, Line

VERDICTS = {
    "yes": "the two numbers agree within our interval and the precision of the published number",
    "no": "they do not",
    "too few seeds": f"our interval is more than {TOO_WIDE:g} times as wide as the precision of the published number",
    "shorter run": "our runs were shorter than those of the paper, so the numbers cannot be compared",
    "not run": "there is no value of ours yet",
}
HEAD = """\
# Published numbers

`vmo-bench reproduce` repeats small experiments of papers on gradient estimators with the code of this project. This
page shows every published number beside ours. The command wrote it, see [`reproduce`](command-line.md#reproduce).

{summary}

*Ours* is the mean over runs with different seeds, ± half the width of the 95 % interval of this mean (Student's t over
runs). There is no interval for a single run, or where nothing is random. The *precision* of a published number is half
a unit of its last digit, its sampling error where that is known, or what can be read off a plot.
"""


FOOT = """\
## Not repeated

Most papers compare estimators by the ELBO of a binary VAE on MNIST after a million steps. One such run takes many
hours on a processor. The task `vae` trains this kind of model: `vmo-bench run --task vae --suite accuracy --preset
paper` does 500,000 steps. Its setting is not exactly that of any paper, so the numbers below are for orientation. They
are recalled, not confirmed.

Shi et al. 2022, [arXiv:2202.09497](https://arxiv.org/abs/2202.09497), ELBO of the training images at the end:
DisARM −102.75, double control variates −102.14, RODEO −101.89.
"""


def render(experiments: Iterable[Experiment], lines: Mapping[str, Sequence[Line]], seconds: Mapping[str, float]) -> str:
    """The page.

    Args:
        experiments: in the order of the page.
        lines: the lines of every experiment, by its name.
        seconds: the time of all runs of every experiment, by its name.
    """
    shown = list(experiments)
    every = [line for experiment in shown for line in lines[experiment.name]]
    parts = [HEAD.format(summary=_summary(shown, lines))]
    used = {line.agrees for line in every}
    parts.append(_table(("verdict", "meaning"), [(name, text) for name, text in VERDICTS.items() if name in used]))
    known = {line.number.known for line in every}
    rows = [(name, text) for name, text in KNOWN.items() if name in known]
    parts.append(_table(("known from", "how we know the published number"), rows))
    parts += [_section(experiment, lines[experiment.name], seconds[experiment.name]) for experiment in shown]
    return "\n".join([*parts, FOOT])


def _summary(experiments: Sequence[Experiment], lines: Mapping[str, Sequence[Line]]) -> str:
    """How many comparisons have each verdict, and from how many papers."""
    rows = []
    for verdict in VERDICTS:
        papers = [each.arxiv for each in experiments for line in lines[each.name] if line.agrees == verdict]
        if papers:
            rows.append((verdict, str(len(papers)), str(len(set(papers)))))
    total = sum(len(lines[each.name]) for each in experiments)
    rows.append(("all", str(total), str(len({each.arxiv for each in experiments}))))
    return _table(("agrees", "comparisons", "papers"), rows).rstrip()


def _section(experiment: Experiment, lines: Sequence[Line], seconds: float) -> str:
    source = f"{experiment.paper}, [arXiv:{experiment.arxiv}](https://arxiv.org/abs/{experiment.arxiv})."
    head = ("number", "published ± precision", "where", "known from", "ours (95 %)", "runs", "agrees")
    rows = [
        (
            line.number.what,
            f"{line.published_text} ± {line.number.within:g}",
            line.number.place,
            line.number.known,
            line.measured_text,
            str(len(line.measured)) if len(line.measured) else "",
            line.agrees,
        )
        for line in lines
    ]
    notes = [*_notes(lines), *_order(lines)]
    parts = [f"## {experiment.name}", source, _folded(experiment.setting), _length(experiment, lines, seconds)]
    return "\n\n".join([*filter(None, parts), _table(head, rows).rstrip(), *map(_folded, notes)]) + "\n"


def _notes(lines: Sequence[Line]) -> list[str]:
    """The notes, each once. One that belongs to a single number begins with that."""
    found: dict[str, list[str]] = {}
    for line in lines:
        if line.number.note:
            found.setdefault(line.number.note, []).append(line.number.what)
    return [note if len(names) > 1 else f"*{names[0]}*: {note}" for note, names in found.items()]


def _length(experiment: Experiment, lines: Sequence[Line], seconds: float) -> str:
    """How long our runs were."""
    ran = sorted({line.length for line in lines if line.length})
    if not ran:
        return ""
    text = f"One run of ours: {' or '.join(ran)}."
    if any(line.short and line.length for line in lines):
        text += f" A full run: {experiment.length:,} {experiment.unit}."
    return f"{text} All runs together took {spoken(seconds)} on one thread of a busy machine."


def _order(lines: Sequence[Line]) -> list[str]:
    """For runs that are too short to compare values: whether the order is the same."""
    if len(lines) < 2 or not all(line.agrees == "shorter run" for line in lines):
        return []
    ours, theirs = (
        " < ".join(line.number.what for line in sorted(lines, key=key))
        for key in (lambda line: line.mean, lambda line: line.number.published)
    )
    return [
        f"Order in the paper, from smallest to largest: {theirs}.",
        f"Order of ours: {ours}. Runs that are so short do not show the order of full runs.",
    ]


def _folded(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def row(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"

    return "\n".join([row(head), row(["---"] * len(head)), *map(row, rows), ""])
