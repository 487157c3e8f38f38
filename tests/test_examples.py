"""The examples run as they stand, and what they train has learned something."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
LEARNED = {
    "bottleneck.py": ("test accuracy", 0.9),
    "categorical_vae.py": ("test ELBO", -22.5),  # independent pixels have −24.6
    "mixture_of_experts.py": ("test accuracy", 0.94),  # a single expert has 0.91
}
"""What an example prints last, and the least that it must be."""


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(LEARNED)


@pytest.mark.parametrize("name", LEARNED)
def test_an_example_learns(name: str) -> None:
    """In a process of its own on one thread, with warnings as errors; it says little, and nothing on standard error."""
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", str(EXAMPLES / name)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    lines = done.stdout.splitlines()
    assert 1 <= len(lines) <= 6 and max(map(len, lines)) <= 120
    what, least = LEARNED[name]
    found = re.match(rf"{what} (-?\d+\.\d+)", lines[-1])
    assert found is not None, lines[-1]
    assert float(found[1]) >= least


@pytest.mark.parametrize("name", LEARNED)
def test_an_example_is_short(name: str) -> None:
    assert len((EXAMPLES / name).read_text().splitlines()) <= 60
