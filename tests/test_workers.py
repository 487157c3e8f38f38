"""Sweeps that share a folder, with others and with workers that die."""

import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from elsewhere import Deadly, planned, sweep_toy
from filelock import FileLock

import estimators
from results import table
from suites.engine import local
from suites.engine.cell import Workshop
from suites.engine.execute import execute, title
from suites.engine.local import InProcess, LocalProcesses
from suites.engine.schedule import TRIES, sweep
from suites.tasks.base import Context

COLUMNS = ["hash", "metric", "part", "point", "x", "value", "status"]


def values(out: Path) -> list[tuple[object, ...]]:
    return sorted(map(str, table.read(out / "rows")[COLUMNS].itertuples(index=False)))  # type: ignore[arg-type]


def test_two_workers_find_what_one_finds(tmp_path: Path) -> None:
    """On equally many threads: sums come out otherwise on others, see docs/reference/determinism.md."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for executor in (InProcess(), LocalProcesses(2)):
            shop = Workshop(Context(), tmp_path / type(executor).__name__)
            items = planned(shop, ["rloo"], ["bias", "variance", "accuracy"], "width")
            assert {done.status for done in sweep(items, shop, shop.out / "rows", executor)} == {"ok"}
    finally:
        torch.set_num_threads(threads)
    assert values(tmp_path / "InProcess") == values(tmp_path / "LocalProcesses")


def test_a_cell_that_another_process_holds_is_left_to_it(tmp_path: Path) -> None:
    shop = Workshop(Context(), tmp_path)
    rows = tmp_path / "rows"
    items = planned(shop, ["rloo", "reinforce"], ["bias"])
    first = items[0].cell
    lock = FileLock(shop.lock(first))
    lock.acquire()
    found = sweep(items, shop, rows, InProcess())
    item, status, *_ = next(found)
    assert item.cell == items[1].cell
    assert status == "ok"
    # the other process finishes its cell and lets go
    source = (rows / f"{items[1].cell.hash}.jsonl").read_text()
    text = source.replace(items[1].cell.hash, first.hash)
    (rows / f"{first.hash}.jsonl").write_text(text)
    lock.release()
    assert next(found) == (items[0], "ok", "by another process", 0.0)
    assert (rows / f"{first.hash}.jsonl").read_text() == text
    assert next(found, None) is None


def test_one_that_starts_late_takes_the_rows_of_another_process(tmp_path: Path) -> None:
    """It was free when the group was handed over, and is done by the time that a worker comes to it."""
    shop = Workshop(Context(), tmp_path)
    items = planned(shop, ["rloo"], ["memory"])
    assert [done.status for done in execute(items, shop, tmp_path / "rows")] == ["ok"] * len(items)
    assert {done.message for done in execute(items, shop, tmp_path / "rows")} == {"by another process"}


def test_two_sweeps_at_once_do_everything_once(tmp_path: Path) -> None:
    start = multiprocessing.get_context("forkserver")
    both = [start.Process(target=sweep_toy, args=(tmp_path,)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert set(table.read(tmp_path / "rows")["status"]) == {"ok"}


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """So that nothing goes on unseen, and the next sweep has the cells."""
    command = [sys.executable, "-m", "suites.run", "--estimator", "rloo", "reinforce", "--task", "width"]
    command += ["--suite", "accuracy", "--preset", "smoke", "--set", "train.epochs=500", "--workers", "2"]
    command += ["--checkpoint-seconds", "0", "--out", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    began = time.monotonic()
    while len(list((tmp_path / "checkpoints").glob("*.safetensors"))) < 2 and time.monotonic() < began + 120:
        time.sleep(0.2)
    assert process.poll() is None
    assert len(list((tmp_path / "checkpoints").glob("*.safetensors"))) == 2
    process.kill()
    process.communicate(timeout=60)  # returns when the workers, who share its pipes, have ended
    for path in (tmp_path / "locks").iterdir():
        with FileLock(path, timeout=0):
            pass


def test_a_dead_workers_cell_is_tried_again_and_then_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With the last that it said. A worker finds an estimator whose name was given here."""
    monkeypatch.setitem(estimators._REGISTRY, "deadly", Deadly)
    shop = Workshop(Context(), tmp_path)
    items = planned(shop, ["deadly", "rloo"], ["bias", "variance"])
    swept = sweep(items, shop, tmp_path / "rows", LocalProcesses(2))
    found = {(item.cell.label.name, item.cell.suite): (status, message) for item, status, message, _ in swept}
    assert found["rloo", "bias"] == found["rloo", "variance"] == ("ok", None)
    died = f"the worker died {TRIES} times, the last time with exit code 7: and the last word"
    assert found["deadly", "bias"] == found["deadly", "variance"] == ("error", died)
    assert capfd.readouterr().err.count("a word\n") == TRIES


def test_a_worker_that_cannot_write_stops_the_sweep(tmp_path: Path) -> None:
    """Its one line is the sweep's."""
    shop = Workshop(Context(), tmp_path)
    items = planned(shop, ["rloo"], ["accuracy"])
    (tmp_path / "checkpoints").write_text("a file where a folder should be")
    with pytest.raises(OSError, match=r"^[^\n]*File exists[^\n]*checkpoints'$"):
        next(sweep(items, shop, tmp_path / "rows", LocalProcesses(2)))
    assert not (tmp_path / "rows").exists()


def test_workers_tell_of_their_progress(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    shop = Workshop(Context(progress=lambda *given: told.append(given)), tmp_path)
    items = planned(shop, ["rloo"], ["overhead"])
    assert {done.status for done in sweep(items, shop, tmp_path / "rows", LocalProcesses(2))} == {"ok"}
    assert told[0][1:] == (0, 0)
    assert {title(item.cell) for item in items} == {what for what, _, total in told if not total}


def test_workers_take_the_gpus_that_are_given_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert [local._visible(slot) for slot in range(3)] == ["2", "5", "2"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [local._visible(slot) for slot in range(3)] == ["0", "1", "0"]
