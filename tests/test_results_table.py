"""The table: what is written comes back, whole or not at all, and damage is named."""

import json
import math
import os
import tempfile

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from results import table

CELL = {
    "suite": "bias",
    "task": "width",
    "task_version": 1,
    "estimator": "relax[temperature=0.5]",
    "estimator_version": 1,
    "preset": "smoke",
    "dataset": "digits",
    "seed": 3,
    "settings": {"draws": 10},
}
PROVENANCE = {
    "commit": "abc",
    "dirty": False,
    "python": "3.11",
    "torch": "2",
    "numpy": "2",
    "device": "cpu",
    "dtype": "float32",
    "wall_s": 1.5,
}
HASH = "0123456789abcdef"


def full(*args, **kwargs):
    return {"cell": CELL, "provenance": PROVENANCE, **table.row(*args, **kwargs)}


texts = st.text(st.characters(codec="utf-8"))
numbers = st.none() | st.floats()
measured = st.builds(
    table.row,
    texts,
    numbers,
    unit=texts,
    se=numbers,
    n=st.integers(0, 2**40),
    part=st.none() | texts,
    point=st.none() | texts,
    x=numbers,
    status=st.sampled_from(table.STATUSES),
    message=st.none() | texts,
)


@given(st.lists(measured, min_size=1, max_size=5))
def test_rows_come_back_as_they_were_written(rows):
    with tempfile.TemporaryDirectory() as directory:
        path = table.write(directory, HASH, [{"cell": CELL, "provenance": PROVENANCE, **row} for row in rows])
        back = table.read_file(path)
        assert [{key: found[key] for key in rows[0]} for found in back] == rows
        assert all(found["cell"] == CELL and found["provenance"] == PROVENANCE for found in back)
        frame = table.read(directory)
        assert frame["metric"].tolist() == [row["metric"] for row in rows]
        for value, row in zip(frame["value"], rows, strict=True):
            assert math.isnan(value) if row["value"] is None else value == row["value"]
        assert table.status(directory, HASH) == max((row["status"] for row in rows), key=table.STATUSES.index)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_say_is_null(tmp_path, value):
    path = table.write(tmp_path, HASH, [full("bytes", value)])
    assert json.loads(path.read_text())["value"] is None


@pytest.mark.parametrize("cut", [0, 1, 40, -1, -2])
def test_a_truncated_file_is_named_in_one_line(tmp_path, cut):
    path = table.write(tmp_path, HASH, [full("bytes", 1.0)] * 2)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(table.TableError) as caught:
        table.read(tmp_path)
    message = str(caught.value)
    assert str(path) in message
    assert f"line {1 if cut >= 0 else 2}" in message
    assert "delete or move" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema": 2}, "schema 2"),
        ({"hash": "f" * 16}, "in a file of"),
        ({"status": "fine"}, "expected one of"),
        ({"value": "3"}, "value"),
        ({"value": True}, "value"),
        ({"n": 1.5}, "n is"),
        ({"cell": {"suite": "bias"}}, "cell lacks task"),
        ({"provenance": None}, "no provenance"),
    ],
)
def test_a_wrong_row_is_neither_written_nor_read(tmp_path, change, says):
    with pytest.raises(table.TableError, match=says):
        table.write(tmp_path, HASH, [full("bytes", 1.0) | change])
    assert list(tmp_path.iterdir()) == []
    (tmp_path / f"{HASH}.jsonl").write_text(
        json.dumps({"schema": 1, "hash": HASH} | full("bytes", 1.0) | change) + "\n"
    )
    with pytest.raises(table.TableError, match=says):
        table.read(tmp_path)


def test_a_crash_in_the_middle_leaves_nothing(tmp_path, monkeypatch):
    def crash(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="no space"):
        table.write(tmp_path, HASH, [full("bytes", 1.0)])
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_file_is_not_a_cell(tmp_path):
    table.write(tmp_path, HASH, [full("bytes", 1.0)])
    (tmp_path / f".{HASH}.00000000.tmp").write_text("half a li")
    assert len(table.read(tmp_path)) == 1


def test_directories_merge_and_the_first_wins(tmp_path):
    other = "f" * 16
    table.write(tmp_path / "mine", HASH, [full("bytes", 1.0)])
    table.write(tmp_path / "theirs", HASH, [full("bytes", 2.0)])
    table.write(tmp_path / "theirs", other, [full("bytes", 3.0)])
    frame = table.read(tmp_path / "mine", tmp_path / "absent", tmp_path / "theirs")
    assert dict(zip(frame["hash"], frame["value"], strict=True)) == {HASH: 1.0, other: 3.0}


def test_an_absent_directory_is_an_empty_frame_of_the_same_types(tmp_path):
    table.write(tmp_path, HASH, [full("bytes", 1.0)])
    empty = table.read(tmp_path / "absent")
    assert empty.empty
    pd.testing.assert_series_equal(empty.dtypes, table.read(tmp_path).dtypes)
    assert table.status(tmp_path / "absent", HASH) is None
