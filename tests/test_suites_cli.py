"""The command line, end to end: what it does, what it refuses, and what it keeps."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import estimators
from estimators.rloo import Rloo
from results import table
from suites.run import REFERENCE, main

SMOKE = ["--preset", "smoke"]
SMALL = [
    "memory_depth=10",
    "memory_widen=1",
    "overhead_batch=4",
    "steps=6",
    "ride=2",
    "estimates=20",
    "references=3",
    "epochs=1",
    "toy_steps=20",
    "toy_estimates=200",
]


@pytest.fixture(autouse=True)
def _own_rows_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the committed rows, whose figures take longer to draw than most of these runs."""
    monkeypatch.setattr("suites.run.REFERENCE", tmp_path / "no reference")


def run(*words: str, out: Path) -> int:
    return main([*words, *SMOKE, "--out", str(out)])


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line on standard error of a command that must exit 2."""
    try:
        status = main(list(words))
    except SystemExit as stop:  # argparse's own refusals
        status = int(str(stop.code))
    captured = capsys.readouterr()
    assert status == 2
    assert "Traceback" not in captured.err + captured.out
    lines = captured.err.strip().splitlines()
    if lines[-1].startswith("error: "):  # beside it, at most the lines of cells that were finished before
        assert all(line.startswith("[") for line in lines[:-1]), captured.err
    return lines[-1]


def test_what_failed_alike_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of = ["--estimator", "exact", "rloo", "--task", "polynomial", "--suite", "bias", "variance", "accuracy"]
    run(*of, "--set", *SMALL, "polynomial_steps=4", out=tmp_path)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("infeasible: ")]
    assert len(said) == 1
    assert said[0].startswith("infeasible: exact on polynomial (bias, variance, accuracy): exact would enumerate")


def test_main_command_end_to_end_and_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("suites.run.REFERENCE", REFERENCE)
    words = ["--estimator", "relax", "--task", "width", "--set", *SMALL]
    assert run(*words, out=tmp_path) == 0
    rows = table.read(tmp_path / "rows")
    assert set(rows["suite"]) == {"bias", "variance", "memory", "overhead", "accuracy"}
    assert set(rows["status"]) == {"ok"}
    assert {"relax", "plain"} == set(rows["estimator"])
    assert (tmp_path / "REPORT.md").exists()
    assert list((tmp_path / "figures").glob("*.png"))
    before = {path: path.read_bytes() for path in (tmp_path / "rows").iterdir()}
    if REFERENCE.exists():  # the committed rows of the others stand beside
        assert "straight_through" in (tmp_path / "REPORT.md").read_text(encoding="utf-8")
    capsys.readouterr()
    assert run(*words, out=tmp_path) == 0
    assert {path: path.read_bytes() for path in (tmp_path / "rows").iterdir()} == before
    assert "done already" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["toy", "depth", "joint"])
def test_every_suite_runs_on_every_task(task: str, tmp_path: Path) -> None:
    assert run("--estimator", "rebar", "concrete", "--task", task, "--set", *SMALL, out=tmp_path) == 0
    rows = table.read(tmp_path / "rows")
    assert set(rows["suite"]) >= {"bias", "variance", "memory", "overhead", "accuracy"}
    assert set(rows["status"]) == {"ok"}
    assert ("sampling" in set(rows["suite"])) == (task == "joint")


def test_an_outside_estimator_runs_in_every_suite(tmp_path: Path) -> None:
    class Four(Rloo):
        def __init__(self, sizes: tuple[int, ...]) -> None:
            super().__init__(sizes, samples=4)

    estimators.register("outside_four", Four)
    try:
        assert run("--estimator", "outside_four", "--task", "toy", "width", "--set", *SMALL, out=tmp_path) == 0
    finally:
        estimators._REGISTRY.pop("outside_four")
    rows = table.read(tmp_path / "rows")
    own = rows[rows["estimator"] == "outside_four"]
    assert set(own["suite"]) == {"bias", "variance", "memory", "overhead", "accuracy"}
    assert set(own["status"]) == {"ok"}
    assert set(own.loc[own["metric"] == "evaluations", "value"]) == {4.0}


def test_results_repeat_from_the_seed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        words = ["--estimator", "relax", "--task", "width", "--suite", "accuracy", "bias", "--set", *SMALL]
        assert run(*words, out=tmp_path / name) == 0
    a, b = (table.read(tmp_path / name / "rows").sort_values(["hash", "metric", "part", "point", "x"]) for name in "ab")
    np.testing.assert_array_equal(a["value"].to_numpy(), b["value"].to_numpy())


def test_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--estimator", "all", "--task", "toy", "width", "--dry-run", out=tmp_path / "out") == 0
    shown = capsys.readouterr().out
    assert "to do" in shown
    assert "infeasible" in shown  # exact at the size of the memory suite
    assert not (tmp_path / "out").exists()


def test_overwrite(tmp_path: Path) -> None:
    words = ["--estimator", "rloo", "--task", "toy", "--suite", "bias", "--set", *SMALL]
    assert run(*words, out=tmp_path) == 0
    (path,) = (tmp_path / "rows").glob("*.jsonl")
    first = path.read_bytes()
    assert run(*words, "--overwrite", "failed", out=tmp_path) == 0
    assert path.read_bytes() == first
    assert run(*words, "--overwrite", "always", out=tmp_path) == 0
    assert path.read_bytes() != first  # at least the wall time differs


def test_compare_prints_paired_differences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--compare", "rloo", "reinforce", "--task", "toy", "--suite", "accuracy", "--seeds", "3", "--set", *SMALL]
    assert run(*words, out=tmp_path) == 0
    assert "paired by seed" in capsys.readouterr().out


def test_in_a_sweep_an_impossible_cell_is_a_row(tmp_path: Path) -> None:
    words = ["--estimator", "exact", "rloo", "--task", "width", "--suite", "memory"]
    assert run(*words, out=tmp_path) == 0
    rows = table.read(tmp_path / "rows").set_index("estimator")
    assert rows.loc["exact", "status"] == "infeasible"
    assert "limit" in rows.loc["exact", "message"]
    assert (rows.loc["rloo", "status"] == "ok").all()


def test_a_diverging_run_is_a_row_and_the_sweep_goes_on(tmp_path: Path) -> None:
    words = ["--estimator", "rloo", "concrete", "--task", "width", "--suite", "accuracy", "--set", *SMALL, "lr=1e9"]
    assert run(*words, out=tmp_path) == 0
    rows = table.read(tmp_path / "rows")
    assert dict(rows.groupby("estimator")["status"].first()) == dict.fromkeys(["concrete", "plain", "rloo"], "diverged")


TOY = ("--task", "toy")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--estimator", "relaxx", *TOY), ("'relaxx'", "did you mean 'relax'", "rloo")),
        (("--estimator", "relax", "--task", "widht"), ("'widht'", "did you mean 'width'", "depth")),
        (("--estimator", "relax[temp=1]", *TOY), ("no option 'temp'", "temperature")),
        (("--estimator", "relax[hidden=", *TOY), ("closing bracket",)),
        (("--estimator", "relax[temperature=-1]", *TOY), ("temperature must be a positive number",)),
        (("--estimator", "relax", *TOY, "--suite", "bais"), ("'bais'", "did you mean 'bias'")),
        (("--estimator", "relax", *TOY, "--preset", "quik"), ("'quik'", "did you mean 'quick'")),
        (("--estimator", "relax", *TOY, "--set", "epoch=3"), ("'epoch'", "did you mean 'epochs'")),
        (("--estimator", "relax", *TOY, "--set", "epochs=three"), ("epochs must be int",)),
        (("--estimator", "relax", *TOY, "--seeds", "-3"), ("must not be negative",)),
        (("--estimator", "relax", *TOY, "--seeds", "0"), ("at least 1",)),
        (("--estimator", "relax", *TOY, "--seeds", "two"), ("invalid int value",)),
        (("--estimator", "relax", *TOY, "--dataset", "cifar1"), ("'cifar1'", "did you mean 'cifar10'")),
        (("--estimator", "relax", *TOY, "--device", "tpu"), ("auto, cpu or cuda",)),
        (("--estimator", "relax", "--task", "width", "--set", "depth=11"), ("6n + 4",)),
        (("--estimator", "relax", "--task", "width", "--set", "width_step=5"), ("step must divide",)),
        (("--estimator", "exact", "--task", "width", "--suite", "memory"), ("configurations", "limit")),
        (("--estimator", "relax"), ("--task",)),
        (("--task", "toy"), ("--estimator",)),
    ],
)
def test_bad_input_is_one_line(
    words: tuple[str, ...], parts: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, *words, "--out", str(tmp_path / "out"))
    for part in parts:
        assert part in line
    assert not list((tmp_path / "out").glob("rows/*"))


def test_cuda_without_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "no CUDA device" in refused(capsys, "--estimator", "rloo", *TOY, "--device", "cuda")


def test_missing_data_are_missed_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--estimator", "rloo", "--task", "toy", "width", "--suite", "bias", *SMOKE, "--out", str(tmp_path)]
    assert "none.npz" in refused(capsys, *words, "--dataset", "none.npz")
    assert not list(tmp_path.glob("rows/*"))


def test_a_file_of_the_users_own_is_known_by_its_content(tmp_path: Path) -> None:
    labels = np.arange(120) % 3
    images = np.random.default_rng(0).integers(0, 256, (120, 8, 8, 3), np.uint8)
    for shift in (0, 1):
        np.savez(tmp_path / "mine.npz", images=images + np.uint8(shift), labels=labels)
        words = ["--estimator", "rloo", "--task", "width", "--suite", "accuracy", "--dataset", "mine.npz"]
        assert run(*words, "--data-root", str(tmp_path), "--set", *SMALL, "batch_size=32", out=tmp_path / "out") == 0
    rows = table.read(tmp_path / "out" / "rows")
    assert set(rows["status"]) == {"ok"}
    assert rows["dataset"].nunique() == 2
    assert all(name.startswith("mine.npz@") for name in rows["dataset"])


def test_corrupt_cache_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cifar10_train.npz").write_bytes(b"PK\x03\x04 nothing")
    words = ["--estimator", "rloo", "--task", "width", "--suite", "accuracy", "--dataset", "cifar10", *SMOKE]
    line = refused(capsys, *words, "--data-root", str(tmp_path), "--out", str(tmp_path / "out"))
    assert "cifar10_train.npz" in line


def test_truncated_rows_are_named_and_nothing_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--estimator",
        "rloo",
        *TOY,
        "--suite",
        "bias",
        "overhead",
        *SMOKE,
        "--set",
        *SMALL,
        "--out",
        str(tmp_path),
    ]
    assert main(words) == 0
    capsys.readouterr()
    paths = sorted((tmp_path / "rows").glob("*.jsonl"))
    paths[0].write_bytes(paths[0].read_bytes()[:-40])
    line = refused(capsys, *words)
    assert str(paths[0]) in line
    assert "delete or move" in line
    assert sorted((tmp_path / "rows").glob("*.jsonl")) == paths


def test_unwritable_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    line = refused(capsys, "--estimator", "rloo", *TOY, "--out", str(blocker / "out"))
    assert str(blocker / "out") in line
    assert "cannot be written" in line


def test_rows_say_what_they_need_to(tmp_path: Path) -> None:
    assert run("--estimator", "rloo", *TOY, "--suite", "overhead", out=tmp_path) == 0
    path = next((tmp_path / "rows").glob("*.jsonl"))
    row = json.loads(path.read_text().splitlines()[0])
    assert row["hash"] == path.stem
    assert set(row["provenance"]) == {"commit", "dirty", "python", "torch", "numpy", "device", "dtype", "wall_s"}
    assert str(tmp_path) not in path.read_text()


def test_help_and_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    shown = capsys.readouterr().out
    for name in (*estimators.available(), "toy", "quick", "cifar10"):
        assert name in shown
    done = subprocess.run([sys.executable, "-m", "suites.run", "--help"], capture_output=True, text=True, check=True)
    assert "--dry-run" in done.stdout


def test_the_example_of_the_readme_learns() -> None:
    text = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    example = text.split("```python\n")[1].split("```")[0]
    names: dict[str, object] = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(example, names)
    exact = estimators.get("exact", sizes=(3, 4, 5))
    logits = tuple(names["logits"])  # type: ignore[arg-type]
    start = exact.estimate(names["objective"], tuple(torch.zeros(k) for k in (3, 4, 5)), ())  # type: ignore[arg-type]
    assert exact.estimate(names["objective"], logits, ()).loss < 0.5 * start.loss  # type: ignore[arg-type]
