"""Tables that fit the terminal's width, or 80 columns if output is piped.

Columns that do not fit go into another table below, which repeats the key columns. Cells that are still too wide are
folded. Nothing is cut off, and text is never interpreted as markup.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Collection, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

LEAST = 12
"""Least width of a folded key column, in characters."""


def show(
    title: str,
    header: Sequence[str],
    lines: Sequence[Sequence[str]],
    *,
    keys: int = 1,
    bold: Collection[int] = (),
    console: Console | None = None,
) -> None:
    """Print a table.

    Args:
        title: text above the table.
        header: column titles.
        lines: the text of each cell.
        keys: how many of the first columns are repeated in every part.
        bold: indices of lines in bold.
        console: default: standard output.
    """
    console = console or Console()
    if title:
        say_folded(title, console=console)
    for number, columns in enumerate(_parts(header, lines, keys, console.width)):
        table = Table(box=box.SIMPLE_HEAD)
        for i in columns:
            table.add_column(Text(header[i]), overflow="fold")
        for at, line in enumerate(lines):
            if number == 0 or any(line[i] for i in columns[keys:]):
                table.add_row(*(Text(line[i]) for i in columns), style="bold" if at in bold else None)
        console.print(table)


def say_folded(text: str, indent: str = "", console: Console | None = None) -> None:
    """Print text, wrapped to the console's width."""
    for line in textwrap.wrap(
        text, (console or Console()).width, initial_indent=indent, subsequent_indent=indent or " " * 4
    ):
        say(line)


def say(text: str) -> None:
    """Print plain text."""
    print(text)


def say_json(value: Any) -> None:
    """Print JSON on standard output."""
    json.dump(value, sys.stdout, ensure_ascii=False, indent=1, allow_nan=False)
    print()


def spoken(seconds: float) -> str:
    """A time, rounded: "4.2 s", "40 s", "2 min", "3 h 20 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _parts(header: Sequence[str], lines: Sequence[Sequence[str]], keys: int, width: int) -> list[list[int]]:
    """The column indices of each part."""
    widths = [max(cell_len(text) for text in (name, *(line[i] for line in lines))) + 3 for i, name in enumerate(header)]
    key = list(range(keys))
    room = width - 1 - sum(min(widths[i], max(LEAST, width // 3)) for i in key)
    parts: list[list[int]] = [[]]
    used = 0
    for i in range(keys, len(header)):
        if parts[-1] and used + widths[i] > room:
            parts.append([])
            used = 0
        parts[-1].append(i)
        used += widths[i]
    return [[*key, *part] for part in parts]
