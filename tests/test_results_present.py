"""What was just measured comes first, and never beside rows of other data without a word."""

import made_rows
import pytest

from results import present, report, table

OWN, PLAIN = "a" * 16, "b" * 16
MINE = {"preset": "cpu[train.epochs=1]", "dataset": "cifar100", "data": "c" * 16}
NOTE = "97 of 60,000 images restored from JPEG"


def write(directory, cell_hash, cell, *rows):
    made = [{**row, "cell": cell, "provenance": made_rows.PROVENANCE} for row in rows]
    table.write(directory, cell_hash, made)


def trained(estimator, accuracy, **cell):
    rows = [table.row("accuracy", accuracy, n=1000, part=part) for part in ("test", "train")]
    rows += [table.row(name, 0.5) for name in ("width_fraction", "width_sd_blocks", "parameters", "macs", "layers")]
    return made_rows.cell("accuracy", "width", estimator, **cell), *rows


@pytest.fixture
def places(tmp_path):
    """Own rows of CIFAR-100 at a changed preset, and reference rows of CIFAR-10 and digits."""
    own, reference = tmp_path / "own", tmp_path / "reference"
    write(own, OWN, *trained("rloo", 0.021, **MINE))
    write(own, PLAIN, *trained("plain", 0.022, **MINE))
    for number, (name, accuracy) in enumerate((("plain", 0.74), ("rloo", 0.70), ("concrete", 0.67))):
        write(reference, f"{number:016x}", *trained(name, accuracy, preset="cpu", dataset="cifar10", data_note=NOTE))
    for number, name in enumerate(("plain", "rloo", "concrete", "relax")):
        write(reference, f"{16 + number:016x}", *trained(name, 0.97, preset="quick"))
    return own, reference


def test_own_rows_come_first_and_others_say_of_what_they_are(places):
    frame = table.read(*places)
    mine, others = present.own_first(frame, {OWN, PLAIN}, "width")
    assert mine.title == "cpu[train.epochs=1], cifar100"
    assert mine.lines["estimator"].tolist() == ["plain", "rloo"]
    assert mine.lines["test accuracy"].tolist() == ["0.022 (n = 1,000)", "0.021 (n = 1,000)"]
    assert mine.own == (True, True)
    assert mine.note == ""
    # of the reference the preset of the same name, though most of it is of another
    assert others.title == "Reference rows, other preset or data set, cpu, cifar10"
    assert others.own == (False, False, False)
    assert others.lines["test accuracy"].tolist()[0] == "0.74 (n = 1,000)"
    assert others.note == f"cifar10: {NOTE}"


def test_rows_of_the_same_preset_and_data_set_stand_beside(places):
    own, reference = places
    write(reference, "d" * 16, *trained("concrete", 0.03, **MINE))
    write(reference, "e" * 16, *trained("rloo", 0.5, seed=1, **MINE))
    write(reference, "8" * 16, *trained("exact", 0.9, **{**MINE, "dataset": "cifar10"}))
    write(reference, "f" * 16, made_rows.cell("memory", "width", "rloo", **{**MINE, "dataset": "none", "data": None}),
          table.row("peak_ratio", 1.5))  # fmt: skip
    write(own, "9" * 16, made_rows.cell("memory", "width", "rloo", **{**MINE, "dataset": "none", "data": None}),
          table.row("peak_ratio", 1.25))  # fmt: skip
    (only,) = present.own_first(table.read(*places), table.hashes(own), "width")
    found = only.lines.set_index("estimator")
    assert list(found.index) == ["plain", "rloo", "concrete", "rloo (reference)"]
    assert only.own == (True, True, False, False)
    assert found.loc["rloo", "test accuracy"] == "0.021 (n = 1,000)"  # of one's own run alone
    assert found.loc["rloo", "peak memory"] == "1.25 (n = 1)"  # what reads no data is of every data set
    assert found.loc["rloo (reference)", "test accuracy"] == "0.5 (n = 1,000)"
    assert found.loc["rloo (reference)", "peak memory"] == "1.5 (n = 1)"


def test_without_own_rows_there_are_only_those_of_others(places):
    (only,) = present.own_first(table.read(places[1]), set(), "width")
    assert only.title == "Reference rows, quick, digits"
    assert present.own_first(table.read(places[1]), set(), "depth") == []


def test_the_same_rules_hold_for_the_first_page(places, tmp_path):
    contest = made_rows.cell("contest", "width", "sweep", preset="cpu[contest.steps=9]", preset_name="cpu")
    for number, name in enumerate("abcdef"):  # of most estimators, and nothing of them is compared in tables
        write(
            places[1], f"{64 + number:016x}", {**contest, "estimator": name, "name": name}, table.row("mse_cost", 1.0)
        )
    text = report.build(places, tmp_path / "out").read_text()
    mine, others = text.index("; cpu[train.epochs=1], cifar100\n"), text.index("other preset or data set, cpu, cifar10")
    assert mine < text.index("| **`rloo`** ") < text.index("**0.021 (n = 1,000)**") < others
    assert "0.74" not in text[mine:others]
    assert others < text.index("0.74 (n = 1,000)")
    assert "**0.74" not in text
    assert f"Data: cifar10: {NOTE}." in text[others:]
    table_1 = text[text.index("## Table 1") :]
    assert table_1.startswith("## Table 1 of the paper, and ours: cpu[train.epochs=1], cifar100\n")
    assert table_1.count("## Table 1") == 1
    assert "74.00" not in table_1
    figures = text.split("](figures/")[1:]
    assert figures and all("quick" not in name and "-cpu-cifar10" not in name for name in figures)


def test_one_name_of_data_with_two_contents_is_two_tables_with_their_notes(tmp_path):
    write(tmp_path / "rows", OWN, *trained("rloo", 0.6, seed=0, dataset="cifar10", data="1" * 16))
    write(tmp_path / "rows", PLAIN, *trained("rloo", 0.8, seed=0, dataset="cifar10", data="2" * 16, data_note=NOTE))
    frame = table.read(tmp_path / "rows")
    tables = present.own_first(frame, {OWN, PLAIN}, "width")
    values = {one.note: one.lines["test accuracy"].tolist() for one in tables}
    assert values == {"": ["0.6 (n = 1,000)"], f"cifar10 (22222222): {NOTE}": ["0.8 (n = 1,000)"]}
    text = report.build([tmp_path / "rows"], tmp_path).read_text()
    compared = text[text.index("### Width") : text.index("## Table 1")]
    assert compared.count("0.6 (n = 1,000)") == 1 and NOTE not in compared, "the page has the first of equal tables"
    assert NOTE in (tmp_path / "REPORT-width.md").read_text()


def test_a_table_is_shortened_by_what_was_hardly_measured_and_never_by_ones_own(places):
    own, reference = places
    write(reference, "d" * 16, *trained("concrete", 0.03, **MINE))
    memory = made_rows.cell("memory", "width", "nvil", **{**MINE, "dataset": "none", "data": None})
    write(reference, "e" * 16, memory, table.row("peak_ratio", 1.5))
    memory = made_rows.cell("memory", "width", "relax", **{**MINE, "dataset": "none", "data": None})
    write(own, "f" * 16, memory, table.row("peak_ratio", 1.5))
    (only,) = present.own_first(table.read(*places), table.hashes(own), "width")
    short = present.shortened(only)
    assert short.lines["estimator"].tolist() == ["plain", "relax", "rloo", "concrete"]
    assert short.own == (True, True, True, False)
    assert short.left_out == 1


def test_another_data_set_at_the_same_preset_has_a_table_of_its_own(places):
    own, reference = places
    for path in reference.iterdir():
        path.unlink()
    write(reference, "8" * 16, *trained("exact", 0.9, **{**MINE, "dataset": "cifar10"}))
    mine, others = present.own_first(table.read(*places), table.hashes(own), "width")
    assert mine.lines["estimator"].tolist() == ["plain", "rloo"]
    assert others.title == "Reference rows, other preset or data set, cpu[train.epochs=1], cifar10"
