"""The rules of a sweep, on an executor that only pretends to run cells."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import made_rows
import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

import estimators
from estimators.rloo import Rloo
from results import table
from suites import labels, suite
from suites.engine import executor, schedule
from suites.engine.executor import Ended, Group
from suites.engine.plan import Planned
from suites.engine.schedule import TRIES, sweep


@dataclass(frozen=True)
class Cell:
    """As much of a cell as the rules read."""

    number: int
    timed: bool = False
    work: int = 0
    same: int = 0
    of: Cell | None = None

    suite = property(lambda self: "overhead" if self.timed else "accuracy")
    label = labels.parse("rloo")

    @property
    def hash(self) -> str:
        return f"{self.number:016x}"

    @property
    def run(self) -> str:
        return f"run {self.same}"

    def needed(self) -> Cell | None:
        return self.of


@dataclass
class World:
    """A folder, an executor, and other sweeps on the folder.

    Args:
        choose: the index of what happens next among so many.
        deaths: how many workers die in each cell.
        others: by name of a run, how often its lock is looked at until another sweep is done with it, and whether it
            leaves rows then.
    """

    folder: Path
    room: int = 2
    separates: bool = False
    choose: Callable[[int], int] = lambda n: 0
    deaths: Counter[str] = field(default_factory=Counter)
    others: dict[str, tuple[int, bool]] = field(default_factory=dict)
    to_do: Sequence[Planned] = ()
    apart: bool = False
    running: list[Group] = field(default_factory=list)
    runs: Counter[str] = field(default_factory=Counter)
    discarded: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)
    started: list[list[int]] = field(default_factory=list)
    ended: bool = False
    broken: bool = False

    def __post_init__(self) -> None:
        self.rows = self.folder / "rows"
        self.looks: Counter[str] = Counter()
        self.theirs = {run: FileLock(self.folder / run) for run in self.others}
        for lock in self.theirs.values():
            lock.acquire()

    # what a workshop does

    def lock(self, cell: Cell) -> Path:
        run = cell.run
        self.looks[run] += 1
        if run in self.theirs and self.looks[run] > self.others[run][0]:
            if self.others[run][1]:
                for item in self.to_do:
                    if item.cell.run == run:
                        self.write(item.cell.hash, "by another")
            self.theirs.pop(run).release()
        return self.folder / run

    def keeper(self, cell: Cell) -> Any:
        return SimpleNamespace(discard=lambda: self.discarded.update([cell.run]))

    def write(self, name: str, message: str | None = None, status: str = "ok") -> None:
        measured = table.row("cell", 1.0, status=status, message=message)
        of = {"cell": made_rows.cell("accuracy", "width", "rloo"), "provenance": made_rows.PROVENANCE | {"wall_s": 0.0}}
        table.write(self.rows, name, [{**measured, **of}])
        self.written.add(name)

    def record(self, item: Planned, shop: object, rows: Path, found: list[dict[str, Any]], seconds: float) -> None:
        self.failed[item.cell.hash] = found[0]["message"]
        self.write(item.cell.hash, found[0]["message"], "error")

    # what an executor does

    def begin(self, shop: object, rows: Path) -> None:
        assert not self.discarded  # one that refuses to begin has cost nothing

    def submit(self, group: Group) -> None:
        running = [item.cell for other in self.running for item in other.items]
        mine = [item.cell for item in group.items]
        assert len(self.running) < self.room
        assert len({cell.work for cell in mine}) == 1
        assert not {cell.run for cell in running} & {cell.run for cell in mine}
        assert not {cell.run for cell in mine} & self.theirs.keys()
        assert group.alone == any(cell.timed for cell in mine)
        if not self.separates:
            assert not running or not any(cell.timed for cell in (*running, *mine))
        for cell in mine:
            learned = cell.of
            if learned is not None and learned not in mine and learned in [item.cell for item in self.to_do]:
                assert learned.hash in self.written
        self.running.append(group)
        self.started.append([cell.number for cell in mine])

    def wait(self, seconds: float | None) -> list[Ended]:
        assert self.running
        if self.broken:
            raise OSError("No space left on device")
        at = self.choose(len(self.running) + (seconds is not None))
        if at == len(self.running):
            return []
        group = self.running.pop(at)
        for item in group.items:
            name = item.cell.hash
            if self.deaths[name]:
                self.deaths[name] -= 1
                return [Ended(group, "with exit code 7: Killed")]
            self.runs[name] += 1
            self.write(name)
        return [Ended(group)]

    def end(self) -> None:
        self.ended = True
        self.running = []


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "PAUSE", 0.0)
    monkeypatch.setattr("os.fsync", lambda file: None)


def swept(world: World, planned: Sequence[Planned], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    world.to_do = [item for item in planned if item.to_do]
    world.written.clear()
    monkeypatch.setattr(schedule, "record", world.record)
    return sweep(planned, world, world.rows, world)  # type: ignore[arg-type]


@st.composite
def plans(draw: st.DrawFn) -> list[Planned]:
    """Cells of which some are timed, some share work or a run, some are controls, some had run before."""
    planned: list[Planned] = []
    kinds = st.lists(
        st.sampled_from(["own", "own", "same run", "shared work", "timed", "control"]), min_size=1, max_size=8
    )
    for number, kind in enumerate(draw(kinds)):
        learned = [item.cell for item in planned if item.cell.work == item.cell.number and not item.cell.timed]
        if kind == "control" and learned:
            cell = Cell(number, work=100 + number, same=number, of=draw(st.sampled_from(learned)))
        elif kind == "shared work":
            cell = Cell(number, work=50, same=number)
        else:
            cell = Cell(number, timed=kind == "timed", work=number, same=50 if kind == "same run" else number)
        state = draw(st.sampled_from([(None, None), (None, None), (None, None, True), ("ok", None)]))
        planned.append(Planned(cell, *state))
    return planned


@given(planned=plans(), data=st.data())
def test_every_cell_ends_with_one_file_and_no_rule_is_broken(planned: list[Planned], data: st.DataObject) -> None:
    """Whatever dies, in whatever order groups end, and whatever others do on the same folder."""
    runs = sorted({item.cell.run for item in planned if item.to_do})
    other = st.dictionaries(st.sampled_from(runs), st.tuples(st.integers(1, 4), st.booleans()), max_size=2)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch:
        world = World(
            Path(folder),
            room=data.draw(st.sampled_from([3, 2, 1])),
            separates=data.draw(st.booleans()),
            choose=lambda n: data.draw(st.integers(0, n - 1)),
            deaths=Counter({item.cell.hash: data.draw(st.sampled_from([0, 0, 1, TRIES])) for item in planned}),
            others=data.draw(other) if runs else {},
        )
        mortal = dict(world.deaths)
        for item in planned:
            if not item.to_do or item.again:
                world.write(item.cell.hash, "of before")
        done = [(item.cell.hash, status) for item, status, *_ in swept(world, planned, monkeypatch)]
        to_do = [item.cell.hash for item in planned if item.to_do]
        assert sorted(name for name, _ in done) == sorted(to_do)
        assert {path.stem for path in world.rows.iterdir()} == {item.cell.hash for item in planned}
        assert all(table.status(world.rows, name) == status for name, status in done)
        assert world.ended and not world.running and not world.theirs
        for item in planned:
            name = item.cell.hash
            kept = table.read_file(world.rows / f"{name}.jsonl")[0]
            assert (kept["message"] == "of before") == (not item.to_do)
            by_another = kept["message"] == "by another"
            assert world.runs[name] + (name in world.failed) + by_another == item.to_do
            if mortal[name] >= TRIES and item.to_do and not by_another:
                assert kept["message"] == f"the worker died {TRIES} times, the last time with exit code 7: Killed"
        again = {item.cell.run for item in planned if item.again}
        assert world.discarded == Counter(again)


def test_what_shares_work_goes_together_and_what_is_timed_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours or not; a control may be with the network that it is a control of."""
    first, second = Cell(0, timed=True, work=9), Cell(1, work=50, same=1)
    cells = [first, second, Cell(2, work=2, same=2), Cell(3, work=50, same=3, of=second)]
    world = World(tmp_path, room=1)
    assert len(list(swept(world, [Planned(cell, None, None) for cell in cells], monkeypatch))) == 4
    assert world.started == [[1, 3], [2], [0]]


def test_nothing_joins_a_timed_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even what another sweep lets go of while it runs."""
    turns = iter([1, 1, 1, 0, 0])  # of the first waits nothing comes
    world = World(tmp_path, choose=lambda n: min(next(turns), n - 1), others={"run 0": (1, False)})
    planned = [Planned(Cell(0, work=0), None, None), Planned(Cell(1, timed=True, work=1, same=1), None, None)]
    list(swept(world, planned, monkeypatch))
    assert world.started == [[1], [0]]


def test_a_cell_is_not_given_up_for_the_deaths_of_one_that_shares_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was done before the worker died is done, and not run again."""
    world = World(tmp_path, deaths=Counter({Cell(1).hash: TRIES}))
    planned = [Planned(Cell(number, same=number), None, None) for number in range(2)]
    found = {item.cell.number: status for item, status, *_ in swept(world, planned, monkeypatch)}
    assert found == {0: "ok", 1: "error"}
    assert world.runs == {Cell(0).hash: 1}


def test_what_ends_without_a_word_or_rows_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    monkeypatch.setattr(world, "wait", lambda seconds: [Ended(world.running.pop())])
    (found,) = swept(world, [Planned(Cell(0), None, None)], monkeypatch)
    assert (found.status, found.message) == ("error", "the worker ended without rows")


def test_a_failure_of_the_storage_stops_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, broken=True)
    planned = [Planned(Cell(number, work=number, same=number), None, None) for number in range(3)]
    with pytest.raises(OSError, match="No space left"):
        next(swept(world, planned, monkeypatch))
    assert world.ended
    assert not world.rows.exists()


def test_closing_a_sweep_cancels_what_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    planned = [Planned(Cell(number, work=number, same=number), None, None) for number in range(4)]
    found = swept(world, planned, monkeypatch)
    next(found)
    assert world.running
    found.close()  # type: ignore[attr-defined]
    assert world.ended and not world.running
    assert len(list(world.rows.iterdir())) == 1


def test_what_another_sweep_did_meanwhile_is_said_to_be_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others come first, and what it is busy with does not keep them waiting."""
    world = World(tmp_path, room=1, others={"run 0": (3, True)})
    planned = [Planned(Cell(number, work=number, same=number), None, None) for number in range(2)]
    found = [(item.cell.number, *rest) for item, *rest in swept(world, planned, monkeypatch)]
    assert found == [(1, "ok", None, 0.0), (0, "ok", "by another process", 0.0)]


def test_all_that_is_timed_is_alone() -> None:
    timed = {name for name in suite.available() if suite.get(name).alone}
    assert timed == {"overhead", "scaling", "contest", "latency"}


def of(name: str) -> Planned:
    label = SimpleNamespace(name=name, options=(("inner", "rloo"),), of=None)
    return Planned(SimpleNamespace(label=label), None, None)  # type: ignore[arg-type]


def test_another_process_is_told_where_estimators_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an inner one, too; a name that was given at run time is unknown there."""
    monkeypatch.setitem(estimators._REGISTRY, "outside", Rloo)
    place = "estimators.rloo:Rloo"
    assert executor.registered([of("outside"), of("plain")]) == {"outside": place, "rloo": place}


@pytest.mark.parametrize("where", ["inside a function", "in the script that was started"])
def test_what_another_process_cannot_import_is_refused_at_once(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Local(Rloo):
        pass

    if "script" in where:
        Local.__module__, Local.__qualname__ = "__main__", "Local"
    monkeypatch.setitem(estimators._REGISTRY, "local", Local)
    world = World(tmp_path, apart=True)
    monkeypatch.setattr(Cell, "label", labels.parse("local"))
    with pytest.raises(ValueError, match=rf"^estimator 'local' is defined {where}, .* without --workers[^\n]*$"):
        next(swept(world, [Planned(Cell(0), None, None)], monkeypatch))
    assert not world.ended and not world.rows.exists()
