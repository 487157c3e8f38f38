"""The page of the documentation with all published numbers, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

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


def render(experiments: Iterable[Experiment], lines: Mapping[str, Sequence[Line]]) -> str:
    """The page, from the lines of every experiment by name."""
    every = [line for found in lines.values() for line in found]
    shown = list(experiments)
    parts = [HEAD.format(summary=_summary(shown, lines))]
    used = {line.agrees for line in every}
    parts.append(_table(("verdict", "meaning"), [(name, text) for name, text in VERDICTS.items() if name in used]))
    known = {line.number.known for line in every}
    rows = [(name, text) for name, text in KNOWN.items() if name in known]
    parts.append(_table(("known from", "how we know the published number"), rows))
    parts += [_section(experiment, lines[experiment.name]) for experiment in shown]
    return "\n".join(parts)


def _summary(experiments: Sequence[Experiment], lines: Mapping[str, Sequence[Line]]) -> str:
    def counted(verdict: str) -> str:
        found = [experiment for experiment in experiments for line in lines[experiment.name] if line.agrees == verdict]
        return f"{len(found)} of {len({experiment.arxiv for experiment in found})} papers"

    total = sum(map(len, lines.values()))
    text = f"**There are {total} published numbers. {counted('yes')} agree with ours.**"
    others = [(name, counted(name)) for name in VERDICTS if name != "yes"]
    return "\n".join([text, *(f"Verdict “{name}”: {count}." for name, count in others if not count.startswith("0 "))])


def _section(experiment: Experiment, lines: Sequence[Line]) -> str:
    title = f"## {experiment.name}\n"
    paper = f"{experiment.paper}, [arXiv:{experiment.arxiv}](https://arxiv.org/abs/{experiment.arxiv}). "
    ran = sorted({line.length for line in lines if line.measured})
    length = f"\n\nOne run of ours: {' or '.join(ran)}." if ran else ""
    if any(line.short and line.measured for line in lines):
        length += f" A full run has {experiment.length:,} {experiment.unit}."
    head = ("number", "published", "± precision", "where", "known from", "ours (95 %)", "runs", "agrees")
    rows = [
        (
            line.number.what,
            line.published_text,
            f"{line.number.within:g}",
            line.number.place,
            line.number.known,
            line.measured_text,
            str(len(line.measured)) if line.measured else "",
            line.agrees,
        )
        for line in lines
    ]
    notes = list(dict.fromkeys(line.number.note for line in lines if line.number.note))
    return "\n".join(
        [title, f"{paper}{experiment.setting}{length}\n", _table(head, rows), *(f"{note}\n" for note in notes)]
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def row(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"

    return "\n".join([row(head), row(["---"] * len(head)), *map(row, rows), ""])
