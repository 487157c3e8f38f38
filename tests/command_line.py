"""What the tests of the command line share."""

from collections.abc import Callable

import pytest

from suites.run import main

SMOKE = ["--preset", "smoke"]
SMALL = [
    "counted.depth=10",
    "counted.widen=1",
    "timed.batch=4",
    "trajectory.steps=6",
    "trajectory.ride=2",
    "gradient.estimates=20",
    "truth.minibatches=3",
    "train.epochs=1",
    "function.steps=20",
    "function.estimates=200",
]
TINY = [*SMOKE, "--set", "function.steps=4", "function.estimates=20"]
TOY = ("--task", "toy")


def refused(capsys: pytest.CaptureFixture[str], *words: str, by: Callable[[list[str]], int] = main) -> str:
    """The one line on standard error of a command that must exit 2."""
    status = by(list(words))
    captured = capsys.readouterr()
    assert status == 2
    assert "Traceback" not in captured.err + captured.out
    lines = captured.err.strip().splitlines()
    assert lines[-1].startswith("error: ")
    # beside it, at most notices and the lines of cells that were finished before
    assert all(line.startswith(("[", "note: ")) for line in lines[:-1]), captured.err
    return lines[-1]
