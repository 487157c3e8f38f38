"""Runs that survive: what a checkpoint holds, and that a killed run ends as if nothing had happened."""

import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from making import granted

from results import table
from suites import labels
from suites.tasks.base import Context
from vmo.checkpoint import Keeper, load, save


@pytest.fixture(autouse=True)
def _own_rows_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the committed rows, whose figures take longer to draw than most of these runs."""
    monkeypatch.setattr("suites.run.REFERENCE", tmp_path / "no reference")


numbers = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
trees = st.recursive(
    numbers | st.integers(0, 2**31).map(lambda seed: torch.randn(2, 3, generator=torch.Generator().manual_seed(seed))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.integers() | st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.stride() == b.stride() and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@given(tree=trees)
def test_what_is_saved_is_what_is_loaded(tree: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("state") / "run.safetensors"
    save(path, tree)
    assert same(load(path), tree)


def test_layouts_and_dtypes_are_kept(tmp_path: Path) -> None:
    last = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    state = {
        "last": last,
        "state": torch.get_rng_state(),
        "half": torch.ones(3, dtype=torch.bfloat16),
        0: torch.ones(()),
    }
    save(tmp_path / "x", state)
    assert same(load(tmp_path / "x"), state)


def test_a_damaged_newest_file_costs_only_the_steps_since_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    assert load(path) is None
    for n in range(3):
        save(path, {"n": n, "w": torch.full((1000,), float(n))})
    whole = path.read_bytes()
    for broken in (whole[:100], whole[:-1], b"", b"\x00" * len(whole)):
        path.write_bytes(broken)
        found = load(path)
        assert found is not None
        assert found["n"] == 1
    path.unlink()
    assert load(path)["n"] == 1  # type: ignore[index]


def test_a_full_disk_leaves_what_stood_there(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: the write breaks off in the middle."""
    path = tmp_path / "run.safetensors"
    save(path, {"n": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"run\.safetensors"):
            save(path, {"n": 2, "w": torch.ones(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load(path) == {"n": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["run.safetensors"]


ABOUT = {"data": "0123456789abcdef", "seed": 0, "settings": {"lr": 0.1, "widths": (1, 2)}}


def test_a_run_goes_on_from_its_own_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    Keeper(path, 0.0, ABOUT).offer(lambda: {"n": 1})
    assert Keeper(path, 0.0, ABOUT).load("cpu") == {"n": 1}
    assert load(path) == {"n": 1}
    Keeper(path, 0.0, ABOUT).finish({"n": 2})
    assert Keeper(path, 0.0, ABOUT).load("cpu") == {"n": 2}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"data": "fedcba9876543210"}, "data is '0123456789abcdef', and this one's is 'fedcba9876543210'"),
        ({"seed": 1}, "seed is 0, and this one's is 1"),
        ({"settings": {"lr": 0.1, "widths": (1, 3)}}, "settings"),
        ({"more": 1}, "more is None, and this one's is 1"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, change: dict[str, Any], key: str) -> None:
    path = tmp_path / "run.safetensors"
    Keeper(path, 0.0, ABOUT).offer(lambda: {"n": 1})
    for a, b in ((ABOUT, {**ABOUT, **change}), ({**ABOUT, **change}, ABOUT)):
        Keeper(path, 0.0, a).offer(lambda: {"n": 1})
        with pytest.raises(ValueError, match="is the checkpoint of a run whose") as caught:
            Keeper(path, 0.0, b).load("cpu")
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
        assert a is not ABOUT or key in str(caught.value)
    with pytest.raises(ValueError, match="checkpoint of a run whose data is"):
        Keeper(path).load("cpu")


def test_the_one_before_says_whose_it_is_too(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    for n in range(2):
        Keeper(path, 0.0, ABOUT).offer(lambda n=n: {"n": n})  # type: ignore[misc]
    path.write_bytes(b"")
    assert Keeper(path, 0.0, ABOUT).load("cpu") == {"n": 0}
    with pytest.raises(ValueError, match="seed"):
        Keeper(path, 0.0, {**ABOUT, "seed": 1}).load("cpu")


WRITES_FOR_EVER = """
import sys, torch
from pathlib import Path
from vmo.checkpoint import save
while True:
    save(Path(sys.argv[1]), {"w": torch.zeros(4_000_000)})
"""


def test_what_a_killed_run_left_is_removed_by_the_next_save(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    for _ in range(20):  # one of them is killed while it writes
        process = subprocess.Popen([sys.executable, "-c", WRITES_FOR_EVER, str(path)])
        limit = time.monotonic() + 60
        while not list(tmp_path.glob(".*.partial")) and time.monotonic() < limit:
            time.sleep(0.001)
        process.kill()
        process.wait()
        if list(tmp_path.glob(".*.partial")):
            break
    assert list(tmp_path.glob(".*.partial"))
    save(tmp_path / "another.safetensors", {"n": 1})
    assert not list(tmp_path.glob(".*"))
    assert load(tmp_path / "another.safetensors") == {"n": 1}


class Stop(Exception):
    """What interrupts a run here."""


@pytest.mark.parametrize(
    ("task", "label"),
    [("width", "plain"), ("width", "relax"), ("depth", "rebar"), ("joint", "reinforce"), ("width", "concrete")],
)
def test_an_interrupted_run_ends_bit_for_bit_like_one_that_was_not(task: str, label: str, tmp_path: Path) -> None:
    """Interrupted at three random steps, mid-epoch or at the end of one; weights, q, optimizers and rows are equal."""
    made = labels.parse(label)
    make = None if label == "plain" else made.make

    def run(path: Path, stops: list[int]) -> list[dict[str, Any]]:
        keeper = Keeper(path, 0.0)
        while True:
            seen = 0

            def progress(what: str, done: int, total: int) -> None:
                nonlocal seen
                seen = done
                if what.startswith("epoch") and stops and done == stops[0]:
                    stops.pop(0)
                    raise Stop

            try:
                context = Context(progress=progress)
                of = granted(task, "train.epochs=2", "train.batch_size=128", context=context, plain=make is None)
                return of.run(make, 0, keeper)
            except Stop:
                continue

    straight = run(tmp_path / "a", [])
    chance = random.Random(f"{task} {label}")
    broken = run(tmp_path / "b", [*sorted(chance.sample(range(1, 23), 2)), 22])
    assert broken == straight
    assert same(load(tmp_path / "b"), load(tmp_path / "a"))


def _kill_until_done(out: Path, kills: int, chance: random.Random) -> None:
    """Start the command and kill it at random moments, `kills` times; then let it finish."""
    start = "import sys, suites.run as run; run.REFERENCE = run.Path('none'); sys.exit(run.main())"
    command = [sys.executable, "-c", start, "--estimator", "relax", "--task", "width", "--suite", "accuracy"]
    command += ["--preset", "smoke", "--set", "train.epochs=6", "--checkpoint-seconds", "0", "--out", str(out)]
    checkpoints = out / "checkpoints"
    for _ in range(kills):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = {path: path.stat().st_mtime_ns for path in checkpoints.glob("*")}
        limit = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < limit:  # until it has got somewhere
            if any(path.stat().st_mtime_ns != before.get(path) for path in checkpoints.glob("*.safetensors")):
                break
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.6))
        process.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM]))
        process.wait()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _compare(tmp_path: Path, kills: int) -> None:
    _kill_until_done(tmp_path / "straight", 0, random.Random(0))
    _kill_until_done(tmp_path / "killed", kills, random.Random(1))
    columns = ["hash", "metric", "part", "point", "x", "value", "status"]
    a, b = (table.read(tmp_path / name / "rows")[columns] for name in ("straight", "killed"))
    assert len(a) > 20
    assert a.equals(b)
    files = sorted((tmp_path / "straight" / "checkpoints").glob("*.safetensors"))
    assert len(files) == 2  # plain and relax
    for file in files:
        assert same(load(file), load(tmp_path / "killed" / "checkpoints" / file.name))


def test_a_run_killed_three_times_is_the_same_run(tmp_path: Path) -> None:
    _compare(tmp_path, 3)


@pytest.mark.slow
def test_a_run_killed_twenty_times_is_the_same_run(tmp_path: Path) -> None:
    _compare(tmp_path, 20)


def test_overwriting_forgets_the_old_run(tmp_path: Path) -> None:
    """The old checkpoint is made to tell another story, which must not turn up in the new rows."""
    from suites.run import main

    words = ["--estimator", "rloo", "--task", "width", "--suite", "accuracy", "--preset", "smoke"]
    words += ["--set", "train.epochs=1", "--out", str(tmp_path)]
    assert main(words) == 0
    columns = ["hash", "metric", "part", "x", "value"]
    first = table.read(tmp_path / "rows")[columns]
    for path in (tmp_path / "checkpoints").iterdir():
        state = load(path)
        assert state is not None
        save(path, {**state, "curves": []})
    assert main([*words, "--overwrite", "always"]) == 0
    assert table.read(tmp_path / "rows")[columns].equals(first)
