"""Table 1 of the paper beside ours."""

from pathlib import Path

import made_rows
import numpy as np
import pandas as pd
import pytest

from results import paper, table
from vmo.config import WideResNetConfig


def rows(
    directory: Path, accuracies: dict[tuple[str, str], list[float]], dataset: str = "cifar10", note: str = ""
) -> pd.DataFrame:
    for number, ((task, name), values) in enumerate(accuracies.items()):
        for seed, value in enumerate(values):
            cell = made_rows.cell("accuracy", task, name, preset="cpu", dataset=dataset, data_note=note, seed=seed)
            found = [
                table.row("accuracy", value, part="test", unit="fraction"),
                table.row("accuracy", value + 0.02, part="train", unit="fraction"),
                table.row("layers", 14 + 2 * seed, unit="layers"),
                table.row("width_fraction", 0.5 + 0.1 * seed, unit="fraction"),
                table.row("width_sd_blocks", 0.2, unit="fraction"),
                table.row("parameters", 175_066, unit="parameters"),
                table.row("macs", 25e6, unit="MACs"),
                table.row("block_width", 12, x=1, unit="channels"),
            ]
            full = [{**one, "cell": cell, "provenance": made_rows.PROVENANCE} for one in found]
            table.write(directory, f"{10 * number + seed:016x}", full)
    return table.read(directory)


def test_the_papers_parameters_and_macs_are_those_of_the_depths_it_states() -> None:
    for dataset, classes in (("cifar10", 10), ("cifar100", 100)):
        lines = paper.published(dataset)
        for model, blocks in (("WRN-28-10", None), ("depth", 11)):
            config = WideResNetConfig(28, 10, classes, blocks=blocks)
            rest, fixed, slope = config.parameters()
            count = rest + sum(fixed) + sum(s * k for s, k in zip(slope, config.widths, strict=True))
            line = lines.loc[("paper", model)]
            assert line["parameters"] == f"{count / 1e6:.3g} M"
            assert line["MACs"] == f"{config.total_macs(32) / 1e9:.3g} G"
        assert lines.loc[("paper", "width"), "parameters"] == ""
    assert paper.published("digits").empty


def test_our_lines_stand_under_the_papers(tmp_path: Path) -> None:
    frame = rows(
        tmp_path,
        {("width", "plain"): [0.90, 0.92], ("width", "rloo"): [0.80, 0.84], ("depth", "rloo"): [0.7]},
        note="97 of 60,000 images restored from JPEG",
    )
    ((place, lines, noise, note),) = paper.beside(frame)
    assert place == "cpu, cifar10"
    assert note == "cifar10: 97 of 60,000 images restored from JPEG"
    assert list(lines.index[:4]) == [("paper", name) for name in ("WRN-28-10", "depth", "width", "joint")]
    assert list(lines.index[4:]) == [("depth", "rloo"), ("width", "plain"), ("width", "rloo")]
    line = lines.loc[("width", "rloo")]
    half = 12.706 * 100 * np.std([0.80, 0.84], ddof=1) / np.sqrt(2)
    assert line["accuracy, % (median)"] == "82.00"
    assert line["accuracy, % (mean)"] == f"82.00 ± {half:.2f}"
    assert line["layers"] == "15"
    assert line["width, %"] == "55.0"
    assert line["± over blocks"] == "20.0"
    assert line["± over seeds"] == "7.1"
    assert (line["parameters"], line["MACs"], line["runs"]) == ("175 k", "25 M", "2")
    assert line["train − test, points"].startswith("2.0")
    assert lines.loc[("depth", "rloo"), "accuracy, % (mean)"] == "70.00"
    assert noise.startswith("Too few seeds")  # two networks have one degree of freedom between them


def test_noise_is_what_is_left_beside_seeds_and_networks(tmp_path: Path) -> None:
    accuracies = {
        ("width", "plain"): [0.90, 0.92],
        ("width", "rloo"): [0.80, 0.84],
        ("depth", "rloo"): [0.70, 0.73],
        ("width", "random"): [0.1, 0.9],  # another network every time
    }
    noise = paper.noise(rows(tmp_path, accuracies))
    # differences between the seeds of 2, 4 and 3 points: residuals of ± ½, ± ½ and 0
    spread = np.sqrt(4 * 0.5**2 / 2)
    least = 4.3027 * spread * np.sqrt(2 / 2)
    assert f"deviation of {spread:.2f} points (pooled over 3 networks with 2 seeds each, 2 degrees" in noise
    assert f"below {least:.2f} points" in noise


def test_plain_counts_once_whatever_it_is_a_baseline_of(tmp_path: Path) -> None:
    values = {(task, "plain"): [0.90, 0.92] for task in ("width", "depth")}
    frame = rows(tmp_path, {**values, ("width", "rloo"): [0.80, 0.84], ("width", "concrete"): [0.80, 0.83]})
    for order in (frame, frame.iloc[::-1]):
        assert "3 networks" in paper.noise(order)


@pytest.mark.parametrize("runs", [1, 2])
def test_few_seeds_are_said_to_be_too_few(tmp_path: Path, runs: int) -> None:
    assert paper.noise(rows(tmp_path, {("width", "rloo"): [0.8, 0.9][:runs]})).startswith("Too few seeds")


def test_without_trained_networks_there_is_no_table(tmp_path: Path) -> None:
    assert list(paper.beside(rows(tmp_path, {("toy", "rloo"): [0.5]}))) == []
