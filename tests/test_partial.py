"""What is being written: whole in the end or not there, and removed once nobody writes it any more."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from vmo import cache, export, partial


def ended() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_file_is_there_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with partial.file(path) as temporary:
        temporary.write_text("whole")
        assert names(path.parent) == [temporary.name] and temporary.name.startswith(".file.")
    assert path.read_text() == "whole"
    with suppress(KeyError), partial.file(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert names(path.parent) == ["file"]
    assert path.read_text() == "whole"


def test_what_others_write_is_left_alone(tmp_path: Path) -> None:
    parent = os.getppid()
    kept = [
        f".a.{partial._machine()}-{parent}.partial",  # of a process that lives
        f".b.0123abcd-{ended()}.partial",  # of another machine
        f".c.{ended()}.partial",  # of another program
        ".d.partial",
        f"e.{partial._machine()}-{ended()}.partial",
        f".f.{partial._machine()}-{ended()}.npz",
    ]
    for name in kept:
        (tmp_path / name).write_text("")
    for name in kept[2:]:
        age(tmp_path / name, 1e6)
    with partial.file(tmp_path / "file") as temporary:
        partial.sweep(tmp_path)
        assert not temporary.exists()
        temporary.write_text("")
        partial.sweep(tmp_path)
    assert names(tmp_path) == sorted([*kept, "file"])


def test_what_nobody_writes_any_more_is_removed(tmp_path: Path) -> None:
    here, dead = partial._machine(), ended()
    for name in (f".a.b.{here}-{dead}.partial", f".c.0123abcd-{dead}.partial", f".d.{here}-{os.getppid()}.partial"):
        (tmp_path / name).write_text("")
        if here not in name or str(dead) not in name:
            age(tmp_path / name, 1.01 * partial.AGE)
    (tmp_path / f".download-x.{here}-{dead}.partial" / "inside").mkdir(parents=True)
    with partial.folder(tmp_path, "export") as folder:
        assert names(tmp_path) == [folder.name]
    assert names(tmp_path) == []


def test_a_number_that_is_no_process_is_judged_by_age(tmp_path: Path) -> None:
    path = tmp_path / f".a.{partial._machine()}-{10**30}.partial"
    path.write_text("")
    partial.sweep(tmp_path)
    assert path.exists()
    age(path, 1.01 * partial.AGE)
    partial.sweep(tmp_path)
    assert not path.exists()


def test_where_processes_cannot_be_asked_for_age_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial.os, "name", "nt")
    assert partial._runs(ended())
    monkeypatch.undo()
    monkeypatch.setattr(partial.os, "kill", lambda *_: (_ for _ in ()).throw(PermissionError))
    assert partial._runs(1)


KILLED = """
import os, signal, sys
from pathlib import Path
from vmo import cache, export

def die(folder):
    (folder / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[1] == "download":
    cache.fill("mnist", Path(sys.argv[2]), lambda split, scratch: die(scratch))
else:
    with export._staged(Path(sys.argv[2])) as folder:
        die(folder)
"""


@pytest.mark.parametrize("what", ["download", "export"])
def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path, what: str) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, what, str(tmp_path)]).returncode < 0
    (left,) = names(tmp_path)
    assert left.startswith(f".{what}-")

    def stop(split: str, scratch: Path) -> None:
        assert names(tmp_path) == [scratch.name]
        raise RuntimeError

    if what == "download":
        with pytest.raises(RuntimeError):
            cache.fill("mnist", tmp_path, stop)  # type: ignore[arg-type]
    else:
        with export._staged(tmp_path) as folder:
            assert names(tmp_path) == [folder.name]
    assert names(tmp_path) == []
