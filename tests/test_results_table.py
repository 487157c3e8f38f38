"""The table: what is written comes back, whole or not at all, and damage is named."""

import gzip
import json
import math
import os
import subprocess
import sys
import tempfile

import made_rows
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from results import packed, table

CELL = made_rows.cell(
    "bias", "width", "relax[temperature=0.5]", options={"temperature": 0.5, "grid": [1, 2]}, seed=3,
    preset="smoke[train.epochs=2]", changed={"train.epochs": 2}, data_note="97 images restored from JPEG",
)  # fmt: skip
PROVENANCE = made_rows.PROVENANCE
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
        ({"schema": 3}, "schema 3"),
        ({"hash": "f" * 16}, "in a file of"),
        ({"status": "fine"}, "expected one of"),
        ({"value": "3"}, "value"),
        ({"value": True}, "value"),
        ({"n": 1.5}, "n is"),
        ({"cell": {"suite": "bias"}}, "cell lacks suite_version, task"),
        ({"cell": {**CELL, "options": "temperature=0.5"}}, "cell: options is"),
        ({"cell": {**CELL, "data": 7}}, "cell: data is"),
        ({"provenance": None}, "no provenance"),
    ],
)
def test_a_wrong_row_is_neither_written_nor_read(tmp_path, change, says):
    with pytest.raises(table.TableError, match=says):
        table.write(tmp_path, HASH, [full("bytes", 1.0) | change])
    assert list(tmp_path.iterdir()) == []
    (tmp_path / f"{HASH}.jsonl").write_text(
        json.dumps({"schema": 2, "hash": HASH} | full("bytes", 1.0) | change) + "\n"
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
    dtypes = table.read(tmp_path).dtypes
    pd.testing.assert_series_equal(empty.dtypes, dtypes[~dtypes.index.str.startswith("option.")])
    assert table.status(tmp_path / "absent", HASH) is None


def test_what_a_cell_is_made_of_is_in_columns(tmp_path):
    table.write(tmp_path, HASH, [full("bytes", 1.0)])
    other = made_rows.cell("bias", "width", "rloo", options={"samples": 2}, dataset="none")
    table.write(tmp_path, "f" * 16, [{**full("bytes", 1.0), "cell": other}])
    mine, others = table.read(tmp_path).to_dict("records")
    assert (mine["name"], mine["preset"], mine["preset_name"]) == ("relax", "smoke[train.epochs=2]", "smoke")
    assert (mine["data"], mine["data_note"]) == ("0123456789abcdef", "97 images restored from JPEG")
    assert (mine["option.temperature"], mine["option.grid"], mine["option.samples"]) == (0.5, (1, 2), None)
    assert json.loads(mine["settings"]) == {"train": {"epochs": 1}}
    assert json.loads(mine["changed"]) == {"train.epochs": 2}
    assert (others["option.samples"], others["option.temperature"], others["suite_version"]) == (2, None, 1)
    assert pd.isna(others["data"])


def test_rows_of_an_older_version_are_said_to_be_that(tmp_path):
    old = {"schema": 1, "hash": HASH} | full("bytes", 1.0)
    (tmp_path / f"{HASH}.jsonl").write_text(json.dumps(old) + "\n")
    with pytest.raises(table.TableError, match="rows of schema 1, which this version") as caught:
        table.read(tmp_path)
    assert "\n" not in str(caught.value)
    assert "delete" not in str(caught.value)
    (tmp_path / f"{HASH}.jsonl").unlink()
    (tmp_path / packed.NAME).write_bytes(gzip.compress(json.dumps(old).encode() + b"\n"))
    with pytest.raises(table.TableError, match="move the folder away"):
        table.status(tmp_path, HASH)


def test_packed_cells_are_read_like_single_ones_and_the_same_rows_make_the_same_bytes(tmp_path):
    other = "f" * 16
    for directory, cells in (("a", (HASH, other)), ("b", (other, HASH))):
        for cell_hash in cells:
            table.write(tmp_path / directory, cell_hash, [full("bytes", 1.0), full("cell", None, status="oom")])
    packs = [table.pack(tmp_path / name, tmp_path / f"packed {name}" / packed.NAME) for name in "ab"]
    assert packs[0].read_bytes() == packs[1].read_bytes()
    (tmp_path / "a" / f"{HASH}.jsonl").rename(tmp_path / "moved.jsonl")
    table.pack(tmp_path / "b", tmp_path / "a" / packed.NAME)  # one cell alone and packed, the other packed alone
    assert table.pack(tmp_path / "a", tmp_path / "again.gz").read_bytes() == packs[0].read_bytes()
    (tmp_path / "a" / packed.NAME).unlink()
    (tmp_path / "moved.jsonl").rename(tmp_path / "a" / f"{HASH}.jsonl")
    alone = table.read(tmp_path / "a").sort_values("hash", kind="stable", ignore_index=True)
    pd.testing.assert_frame_equal(table.read(packs[0].parent), alone)
    assert table.status(packs[0].parent, other) == "oom"
    assert table.rows_of(packs[0].parent, other) == table.rows_of(tmp_path / "a", other)
    assert len(table.rows_of(packs[0].parent, other)) == 2 and table.rows_of(packs[0].parent, "0" * 16) == []
    assert table.status(packs[0].parent, "e" * 16) is None
    assert table.hashes(packs[0].parent) == {HASH, other}
    # beside single files, of which the newer row of a cell is
    table.write(packs[0].parent, HASH, [full("bytes", 2.0)])
    both = table.read(packs[0].parent)
    assert both.loc[both["metric"] == "bytes"].set_index("hash")["value"].to_dict() == {HASH: 2.0, other: 1.0}
    assert table.status(packs[0].parent, HASH) == "ok"
    with pytest.raises(table.TableError, match="no rows"):
        table.pack(tmp_path / "absent", tmp_path / "x.gz")


def test_a_damaged_pack_is_named_in_one_line(tmp_path):
    table.write(tmp_path / "a", HASH, [full("bytes", 1.0)])
    pack = table.pack(tmp_path / "a", tmp_path / packed.NAME)
    pack.write_bytes(pack.read_bytes()[:-9])
    with pytest.raises(table.TableError, match=r"rows\.jsonl\.gz, line 2: .*delete or move") as caught:
        table.read(tmp_path)
    assert "\n" not in str(caught.value)


def test_how_a_cell_ended_is_said_with_the_message_of_its_worst_row(tmp_path):
    table.write(tmp_path, HASH, [full("seconds", 1.0), full("seconds", None, status="infeasible", message="too wide")])
    assert table.outcome(tmp_path, HASH) == ("infeasible", "too wide")
    table.write(tmp_path, HASH, [full("seconds", None, status="error")])
    assert table.outcome(tmp_path, HASH) == ("error", "")


def test_what_a_killed_writer_left_is_removed_a_day_later(tmp_path):
    left, fresh = (tmp_path / f".{HASH}.{number}.tmp" for number in ("00000000", "11111111"))
    for path in (left, fresh):
        path.write_text("half a li")
    os.utime(left, (0, 0))
    table.write(tmp_path, HASH, [full("bytes", 1.0)])
    assert not left.exists()
    assert fresh.exists()


def test_a_writer_of_rows_need_not_wait_for_pandas():
    code = "import sys; from results import table; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
