"""What is told of a sweep where output is piped."""

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from suites import labels
from suites.engine import progress
from suites.engine.execute import Finished, title
from suites.engine.progress import Level, Progress

CELL = SimpleNamespace(task="width", suite="accuracy", label=labels.parse("rloo[samples=4]"), seed=0)
NAME = "width accuracy rloo[samples=4] seed 0"
ITEM: Any = SimpleNamespace(cell=CELL, to_do=True, kept=None)


class Told:
    """A progress whose clock is set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, level: Level = "normal") -> None:
        self.now, self.file = 1000.0, io.StringIO()
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)
        self.progress = Progress(level, Console(file=self.file, width=40))
        self.progress.begin([ITEM])
        self.progress.detail(title(CELL), 0, 0)  # type: ignore[arg-type]

    def after(self, seconds: float, what: str, done: int, total: int) -> list[str]:
        """What a message comes to."""
        self.now += seconds
        self.file.truncate(self.file.seek(0))
        self.progress.detail(what, done, total)
        return self.file.getvalue().splitlines()


def test_every_epoch_is_a_line_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """On one line, however narrow the console is taken for. The pace is that since it went on, at step 100."""
    told = Told(monkeypatch)
    assert told.after(10, "epoch 2 of 8", 100, 800) == [f"{NAME}: epoch 2 of 8, 12 %"]
    assert told.after(10, "epoch 2 of 8", 150, 800) == []
    assert told.after(10, "epoch 3 of 8", 200, 800) == [f"{NAME}: epoch 3 of 8, 25 %, 2 min left"]


def test_what_has_no_epochs_has_a_line_for_each_tenth_and_one_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch)
    assert told.after(0, "training", 0, 100) == []
    assert told.after(10, "training", 5, 100) == [f"{NAME}: training, 5 %, 3 min left"]
    assert told.after(10, "training", 9, 100) == []
    assert told.after(10, "training", 12, 100) == [f"{NAME}: training, 12 %, 4 min left"]
    assert told.after(59, "training", 13, 100) == []
    assert told.after(1, "training", 13, 100) == [f"{NAME}: training, 13 %, 10 min left"]


def test_a_short_cell_is_no_line_but_its_last(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch)
    assert [line for i in range(9) for line in told.after(0.5, f"epoch {i} of 9", i, 9)] == []
    told.progress.finished(Finished(ITEM, "ok", None, 4.5))
    assert told.file.getvalue() == f"[1/1] {NAME}: ok (4.5 s)\n"


def test_cells_side_by_side_are_told_of_under_their_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each at its own pace."""
    told = Told(monkeypatch)
    told.progress.detail("other", 0, 0)
    assert told.after(6, "training", 1, 2) == ["other: training, 50 %"]
    told.progress.detail(NAME, 0, 0)
    assert told.after(0, "training", 1, 4) == [f"{NAME}: training, 25 %"]
    assert told.after(6, "training", 2, 4) == [f"{NAME}: training, 50 %, 12 s left"]
    told.progress.detail("other", 0, 0)
    assert told.after(6, "next", 1, 2) == ["other: next, 50 %"]


def test_quiet_tells_of_errors_alone_and_verbose_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = Told(monkeypatch, "quiet")
    assert quiet.after(100, "training", 1, 2) == []
    quiet.progress.finished(Finished(ITEM, "ok", None, 1.0))
    quiet.progress.finished(Finished(ITEM, "error", "what [it] was", 1.0))
    assert quiet.file.getvalue() == f"[2/1] {NAME}: error (1.0 s): what [it] was\n"
    verbose = Told(monkeypatch, "verbose")
    assert verbose.after(0, "training", 0, 20) == [f"{NAME}: training"]
    assert verbose.after(0.1, "training", 1, 20) == []
    assert verbose.after(0.1, "training", 2, 20) == [f"{NAME}: training, 10 %, 2 s left"]


@pytest.mark.parametrize(("seconds", "said"), [(0.4, "0 s"), (99, "99 s"), (119, "2 min"), (7260, "2 h 1 min")])
def test_times_are_said_as_precisely_as_they_are_known(seconds: float, said: str) -> None:
    assert progress._spoken(seconds) == said
