"""Sweeps on a Ray cluster of several nodes, all of them on this machine; one is killed.

They need the extra `ray` and are slow: pip install -e '.[test,ray]' && pytest -m slow tests/test_ray.py
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from elsewhere import TINY, planned
from filelock import FileLock

from results import table
from suites.engine import on_ray as ray_launcher
from suites.engine.cell import Workshop
from suites.engine.executor import Group
from suites.engine.progress import silent
from suites.tasks.base import Context
from vmo import checkpoint

ROOT = Path(ray_launcher.__file__).parents[2]
COLUMNS = ["hash", "metric", "part", "point", "x", "value", "status", "message"]
LONGER = ["train.epochs=12"]
LIMIT = 300  # seconds, for a test that would wait for ever


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU beside a head without any."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80 * 2**20}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **small})
    try:
        for _ in range(2):
            made.add_node(num_cpus=1, **small)
        yield made
    finally:
        made.shutdown()


def command(*words: str, out: Path, settings: list[str] = TINY, first: str = "") -> list[str]:
    start = f"import sys, suites.run as run; run.REFERENCE = run.Path('none'); {first}sys.exit(run.main())"
    return [
        sys.executable, "-c", start, *words, "--preset", "smoke", "--out", str(out), "--set", *settings,
    ]  # fmt: skip


def environment(cluster: Any) -> dict[str, str]:
    return {**os.environ, "RAY_ADDRESS": cluster.address, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def values(out: Path) -> list[str]:
    """Of all but times."""
    rows = table.read(out / "rows").query("suite != 'overhead'")
    return sorted(map(str, rows[COLUMNS].itertuples(index=False)))


def epoch_of(path: Path) -> int | None:
    """The epoch that a checkpoint was taken in; None while it is being replaced."""
    try:
        state = checkpoint.load(path)
    except RuntimeError:
        return None
    return None if state is None else int(state["epoch"])


@pytest.mark.slow
def test_the_cluster_finds_what_this_machine_finds(cluster: Any, tmp_path: Path) -> None:
    """An estimator, a control of what it learned, timings and an impossible one; from a folder that is no checkout."""
    words = ["--estimator", "rloo", "scratch[of=rloo]", "exact[limit=2]", "--task", "width"]
    words += ["--suite", "bias", "overhead", "accuracy"]
    for launcher in ("ray", "local"):
        out = tmp_path / launcher
        done = subprocess.run(
            command(*words, "--launcher", launcher, out=out),
            cwd=tmp_path, env=environment(cluster), capture_output=True, text=True, timeout=LIMIT, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert values(tmp_path / "ray") == values(tmp_path / "local")
    timings = table.read(tmp_path / "ray" / "rows").query("suite == 'overhead'")
    assert set(timings["status"]) == {"ok", "infeasible"}
    assert not list((tmp_path / "ray").glob(".sweep-*"))
    here, there = (table.read(tmp_path / name / "rows")[["commit", "dirty"]] for name in ("local", "ray"))
    assert here.drop_duplicates().equals(there.drop_duplicates())


def test_a_cell_needs_its_threads_and_a_timing_a_whole_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_launcher, "_nodes", lambda: [{"CPU": 2.0, "GPU": 1.0}, {"CPU": 8.0}, {}])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert ray_launcher._cpus(cuda=False) == (1, 8)
    assert ray_launcher._cpus(cuda=True) == (1, 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert ray_launcher._cpus(cuda=False) == (4, 8)
    with pytest.raises(ValueError, match=r"4 CPUs.* and a GPU"):
        ray_launcher._cpus(cuda=True)


@pytest.mark.slow
def test_what_a_lost_node_was_running_goes_on_elsewhere(cluster: Any, tmp_path: Path) -> None:
    """Both nodes run a cell; one is killed, and its cell waits for the other node and goes on from its checkpoint."""
    words = ["--estimator", "rloo", "--task", "width", "--suite", "accuracy"]
    sweep = subprocess.Popen(
        command(*words, "--launcher", "ray", "--checkpoint-seconds", "0", out=tmp_path / "ray", settings=LONGER),
        env=environment(cluster), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    seen: dict[str, list[int]] = {}
    killed: dict[str, int] = {}
    began = time.monotonic()
    try:
        while sweep.poll() is None and time.monotonic() < began + LIMIT:
            for path in (tmp_path / "ray" / "checkpoints").glob("*.safetensors"):
                epochs = seen.setdefault(path.stem, [0])
                if (epoch := epoch_of(path)) not in (None, epochs[-1]):
                    epochs.append(epoch)
            if not killed and len(seen) == 2 and all(epochs[-1] >= 3 for epochs in seen.values()):
                assert not (tmp_path / "ray" / "rows").exists()
                cluster.remove_node(cluster.list_all_nodes()[1], allow_graceful=False)
                killed = {name: epochs[-1] for name, epochs in seen.items()}
            time.sleep(0.02)
    finally:
        sweep.kill()
        output = sweep.communicate()[0]
        if killed:
            cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    assert sweep.returncode == 0, output
    assert min(killed.values(), default=0) >= 3
    for epochs in seen.values():  # a run that began anew would be seen at its first epochs again
        assert epochs == sorted(epochs)
    local = subprocess.run(
        command(*words, out=tmp_path / "local", settings=LONGER),
        env=environment(cluster),
        timeout=LIMIT,
        check=True,
    )
    assert local.returncode == 0
    assert values(tmp_path / "ray") == values(tmp_path / "local")


@pytest.mark.slow
def test_a_task_that_dies_every_time_is_a_row(cluster: Any, tmp_path: Path) -> None:
    deadly = "import os; run.ray_launcher._work = lambda *given: os._exit(7); "
    words = ["--estimator", "rloo", "--task", "toy", "--suite", "bias", "variance", "--launcher", "ray"]
    done = subprocess.run(
        command(*words, out=tmp_path, first=deadly),
        env=environment(cluster), capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    frame = table.read(tmp_path / "rows")
    assert frame["status"].to_list() == ["error"] * 2
    assert frame["message"].str.startswith("the worker died 3 times, the last time on the Ray cluster: ").all()


@pytest.mark.slow
def test_an_interrupted_sweep_ends_its_tasks(cluster: Any, tmp_path: Path) -> None:
    words = ["--estimator", "rloo", "--task", "width", "--suite", "accuracy", "--launcher", "ray"]
    sweep = subprocess.Popen(
        command(*words, "--checkpoint-seconds", "0", out=tmp_path, settings=["train.epochs=500"]),
        env=environment(cluster), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    began = time.monotonic()
    try:
        while len(list((tmp_path / "checkpoints").glob("*.safetensors"))) < 2 and time.monotonic() < began + LIMIT:
            time.sleep(0.1)
        sweep.send_signal(signal.SIGINT)
        output = sweep.communicate(timeout=60)[0]
    finally:
        sweep.kill()
    assert sweep.returncode == 130, output
    for path in (tmp_path / "locks").iterdir():
        with FileLock(path, timeout=30):
            pass
    assert not list(tmp_path.glob(".sweep-*"))


def test_what_cannot_be_done_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    for words, said in ((["--workers", "2"], "--workers needs --launcher local"), ([], "found no Ray cluster")):
        done = subprocess.run(
            command("--estimator", "rloo", "--task", "toy", "--launcher", "ray", *words, out=tmp_path),
            env={**os.environ, "RAY_ADDRESS": "auto", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("error: ") and said in done.stderr
        assert done.stderr.count("\n") == 1


def test_without_ray_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match="needs Ray: pip install ray"):
        ray_launcher.connect()


def test_where_the_folder_is_not_shared_rows_come_back_and_nothing_is_left(tmp_path: Path) -> None:
    """A control's node is sent what was learned."""
    out = tmp_path / "out"
    shop = Workshop(Context(progress=silent), out)
    *learned, control = planned(shop, ["rloo", "scratch[of=rloo]"], ["accuracy"], "width")
    with ray_launcher._mark(out) as mark:
        pass  # and it is gone
    first = ray_launcher._work(Group(tuple(learned)), shop, {}, 1, mark)
    assert list(out.iterdir()) == []
    name = next(iter(ray_launcher._needed([control])))
    second = ray_launcher._work(Group((control,)), shop, {name: first[name]}, 1, mark)
    ray_launcher._keep({**first, **second}, out / "rows")
    assert set(table.read(out / "rows")["status"]) == {"ok"}
    assert {item.cell.hash for item in (*learned, control)} == set(table.read(out / "rows")["hash"])


def test_where_the_folder_is_shared_rows_are_written_once(tmp_path: Path) -> None:
    shop = Workshop(Context(progress=silent), tmp_path)
    items = planned(shop, ["rloo"], ["memory"], "width")
    with ray_launcher._mark(tmp_path) as mark:
        found = ray_launcher._work(Group(tuple(items)), shop, {}, 1, mark)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "rows").iterdir()}
    assert len(before) == len(items)
    ray_launcher._keep(found, tmp_path / "rows")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "rows").iterdir()} == before


def test_a_node_that_cannot_write_stops_the_sweep_and_what_else_fails_there_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray = pytest.importorskip("ray")
    group = Group(())

    def failing(cause: Exception) -> Any:
        error = ray.exceptions.RayTaskError("_work", "where it was", cause)
        monkeypatch.setattr(ray, "get", lambda ref: (_ for _ in ()).throw(error.as_instanceof_cause()))
        return ray_launcher.OnRay()

    executor = failing(KeyError("a\nname"))
    executor._rows = Path("unused")
    assert executor._over(None, group) == (group, "on the Ray cluster: 'a\\nname'")
    executor = failing(OSError(28, "No space left on device"))
    executor._rows = Path("unused")
    with pytest.raises(OSError, match=r"^on a node of the Ray cluster: .*No space left on device$"):
        executor._over(None, group)
