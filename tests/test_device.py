"""A training step stays on its device and never waits for it: shown on a device of fake tensors, see `fake_device`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import estimators

WITH = ("plain-", "target-joint", "groups-width", "fixed-width")


def reports(*names: str) -> dict[str, list[str]]:
    """What is wrong with a step of each of these estimators on each task, and with the ways of training in `WITH`."""
    program = [sys.executable, str(Path(__file__).parent / "fake_device.py"), *names]
    where = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # the packages that are tested here
    done = subprocess.run(program, capture_output=True, text=True, timeout=900, env=where)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, list[str]] = json.loads(done.stdout)
    assert set(WITH) < set(found)
    return found


def test_a_step_stays_on_the_device_and_never_waits_for_it() -> None:
    found = reports("rebar")
    assert len(found) == 3 + len(WITH)
    assert not {what: wrong for what, wrong in found.items() if wrong}


@pytest.mark.slow
def test_a_step_of_every_estimator_does() -> None:
    found = reports()
    skipped = {what for what, wrong in found.items() if wrong == ["skip"]}
    assert skipped == {"partly_exact-depth"}
    forms = [what for what in found if "[" in what]
    assert len(forms) == 4
    assert len(found) == 3 * len(estimators.available()) + len(forms) + len(WITH)
    assert not {what: wrong for what, wrong in found.items() if wrong and what not in skipped}
