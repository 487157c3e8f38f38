"""The page of HTML: what is on it, by its text, and what it does, in a browser."""

import base64
import csv
import gzip
import json
import re
import shutil
import sys
import warnings

import made_rows
import numpy as np
import pandas as pd
import pytest
import torch
from test_results_plots import synthetic

import estimators
from estimators.base import Estimator
from results import explorer, known, statements, summary, table
from results.explorer import numbers, page, places, ranks
from suites import report as command

NAMES = ("plain", "exact", "reinforce", "rloo", "concrete", "concrete[temperature=0.3]", "relax", "straight_through")
HOSTILE = "</script><b id=broken>"
WIDTH = "width|small, digits"


def add(directory, number, cell, *rows):
    made = [{**row, "cell": cell, "provenance": made_rows.PROVENANCE} for row in rows]
    table.write(directory, f"{number:016x}", made)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    directory = tmp_path_factory.mktemp("rows")
    synthetic(directory, tasks=("width",), seeds=3, names=NAMES)
    for task in ("toy", "width"):
        add(directory, 2**40 + len(task), made_rows.cell("memory", task, HOSTILE), table.row("peak_ratio", 1.25))
    return directory


@pytest.fixture(scope="module")
def built(rows, tmp_path_factory):
    return explorer.build([rows], tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def found(built):
    return unpacked(built.read_text(encoding="utf-8"))


def unpacked(text):
    letters = re.search(r'id="data">([^<]*)<', text)[1]
    return json.loads(gzip.decompress(base64.b64decode(letters)))


# --- by its text ----------------------------------------------------------------------------------------------------


def test_the_page_is_one_file_that_asks_for_no_other(built):
    text = built.read_text(encoding="utf-8")
    assert [path.name for path in built.parent.iterdir()] == ["explorer.html"]
    assert 4e6 < built.stat().st_size < 8e6
    of_page = re.sub(r"<script.*?</script>|<style>.*?</style>", "", text, flags=re.DOTALL)
    assert not re.search(r"https?://|@import|\ssrc=", of_page)
    assert re.findall(r'\shref="([^"]*)"', of_page) == ["data:,", "#compare"]
    assert not re.search(r"@import|url\(['\"]?(?!data:|#)", text[text.index("<style>") : text.index("</style>")])
    assert "default-src 'none'" in of_page


def test_it_has_every_estimator_and_says_what_is_missing(found):
    assert set(NAMES) | {HOSTILE} == set(found["estimators"])
    assert found["tables"][WIDTH]["exact"]["peak memory"] == "failed: infeasible: 16^12 terms"
    assert found["tables"][WIDTH]["plain"]["variance"] == "not measured"
    assert found["tables"][WIDTH][HOSTILE]["peak memory"][0] == 1.25
    assert len(found["highlighted"]) <= page.HIGHLIGHTED
    assert [one["number"] for one in found["statements"]] == list(range(1, 11))


def test_names_are_text_and_never_markup(built):
    assert HOSTILE not in built.read_text(encoding="utf-8")


def test_numbers_are_those_of_the_report_with_the_rows_behind_them(rows, found):
    frame = places.compared(table.read(rows), ())
    compared = summary.quantities(frame, "width")
    shown = found["tables"][WIDTH]
    for name, lines in compared.items():
        for line in lines.itertuples():
            assert shown[line.estimator][name][4] == summary.with_error(line)
    value, low, high, n, _, behind, _ = shown["rloo"]["test accuracy"]
    mine = [found["rows"][i] for i in behind]
    assert [row[1] for row in mine] == ["accuracy"] * 3
    assert np.mean([row[3] for row in mine]) == pytest.approx(value, rel=1e-4)
    assert low < value < high
    assert n == 3
    assert {row[1:3].__repr__() for row in (found["rows"][i] for i in shown["rloo"]["relative bias"][5])} == {
        "['bias_sq', 'logits, mid']",
        "['gradient_sq', 'logits, mid']",
    }
    assert {cell[0]: cell[9] for cell in found["cells"]}[mine[0][0]] == made_rows.PROVENANCE["commit"]


def test_the_same_rows_make_the_same_page(tmp_path):
    add(tmp_path / "rows", 1, made_rows.cell("memory", "width", "rloo"), table.row("peak_ratio", 1.5))
    pages = [explorer.build([tmp_path / "rows"], tmp_path / name).read_bytes() for name in ("a", "b")]
    assert pages[0] == pages[1]


def test_own_rows_stand_beside_others_of_the_same_estimator(tmp_path):
    for name, estimator in (("mine", "rloo"), ("others", "rloo"), ("others", "carms")):
        cell = made_rows.cell("memory", "width", estimator)
        add(tmp_path / name, len(name + estimator), cell, table.row("peak_ratio", 1.5))
    built = explorer.build([tmp_path / "mine", tmp_path / "others"], tmp_path)
    assert set(unpacked(built.read_text())["tables"][WIDTH]) == {"rloo", "rloo (reference)", "carms"}


def test_rows_of_others_packages_have_a_page(tmp_path):
    add(tmp_path / "rows", 1, made_rows.cell("heat", "kettle", "steam"), table.row("joules", 4.0, unit="J", n=7))
    data = unpacked(explorer.build([tmp_path / "rows"], tmp_path).read_text())
    assert data["estimators"]["steam"]["needs"] is None
    assert data["tasks"][0]["name"] == "kettle"


def test_rows_of_the_study_alone_have_a_page_and_rows_of_no_task_have_none(tmp_path):
    cell = made_rows.cell("accuracy", "width", "rloo", preset="study")
    add(tmp_path / "study", 1, cell, table.row("accuracy", 0.9, n=10, part="test"))
    frame = table.read(tmp_path / "study")
    assert places.places(places.compared(frame, ()), "width") == [("width", "study", "digits")]
    add(tmp_path / "checks", 1, made_rows.cell("loop", "plain", "plain"), table.row("loop_ratio", 0.75))
    with pytest.raises(table.TableError, match="no rows of a task"):
        explorer.build([tmp_path / "checks"], tmp_path)


@pytest.mark.parametrize("missing", [(), ("plotly",)])
def test_the_command(missing, tmp_path, monkeypatch, capsys):
    add(tmp_path / "rows", 1, made_rows.cell("memory", "width", "rloo"), table.row("peak_ratio", 1.5))
    monkeypatch.setattr(page, "find_spec", lambda name: None if name in missing else sys)
    status = command.main(["--html", "--rows", str(tmp_path / "rows"), "--out", str(tmp_path / "out")])
    said = capsys.readouterr()
    assert status == (2 if missing else 0)
    assert ("pip install plotly" in said.err) == bool(missing)
    assert said.err.count("\n") == len(missing)
    assert (tmp_path / "out" / "explorer.html").exists() != bool(missing)


# --- ranks, profiles, and what is known -----------------------------------------------------------------------------


def measured(**values):
    """Numbers of estimators with intervals."""
    lines = [(name, name, *value) for name, value in values.items()]
    return pd.DataFrame(lines, columns=["estimator", "name", "value", "low", "high"])


def test_ranks_say_what_the_intervals_leave_open():
    lines = measured(a=(1, 0.5, 1.5), b=(2, 1.2, 2.8), c=(9, 8, 10), d=(9, np.nan, np.nan), e=(20, 19, 21))
    found = ranks.ranks(lines, more=False)
    assert found == {"a": (1, 1, 2, 5), "b": (2, 1, 2, 5), "c": (3, 3, 4, 5), "d": (3, 3, 4, 5), "e": (5, 5, 5, 5)}
    assert ranks.ranks(lines, more=True)["e"] == (1, 1, 1, 5)


def test_a_negative_squared_bias_is_no_better_than_none_and_references_have_no_rank():
    lines = measured(a=(-0.5, -1, 0.2), b=(0.0, -1, 1), c=(3, 2, 4), plain=(0, 0, 0))
    found = ranks.table({"toy": {"relative bias": lines}}, "relative bias")["toy"]
    assert {name: one.rank for name, one in found.items()} == {"a": 1, "b": 1, "c": 3}
    assert ranks.relative({"toy": found}, "c") == 1.0


def test_a_profile_counts_the_tasks_within_a_ratio_and_what_has_no_number_never():
    exact = (0.0, 0.0, 0.0)
    tasks = {
        "one": {"variance × cost": measured(rloo=(2, 1, 3), relax=(1, 1, 1), concrete=(0.1, 0, 1), exact=exact)},
        "two": {"variance × cost": measured(rloo=(3, 1, 3), sweep=(6, 5, 7))},
    }
    claims = {name: known.of(name, {}) for name in ("rloo", "relax", "concrete", "exact", "sweep")}
    names, found = ranks.profile(tasks, "variance × cost", claims)
    assert names == ["one", "two"]
    assert found == {"rloo": {"one": 2.0, "two": 1.0}, "relax": {"one": 1.0}, "sweep": {"two": 2.0}}


OPTIONS = [("relax", {"relaxed_objective": True}), ("sweep", {"slopes": False}), ("averaged", {"of": "rloo"})]


@pytest.mark.parametrize(("name", "options"), [(name, {}) for name in estimators.available()] + OPTIONS)
def test_what_is_known_of_an_estimator_is_what_it_claims_and_asks_for(name, options):
    """It asks for slopes where it warns of an f that has none, and for soft samples where it evaluates f at one."""
    if name in ("averaged", "partly_exact") and not options:
        options = {"of": "straight_through" if name == "averaged" else "rloo"}  # which rows always hold
    made = estimators.get(name, sizes=(3, 2), **options)
    logits = tuple(torch.zeros(k, requires_grad=True) for k in (3, 2))
    soft = False

    def f(sample):
        nonlocal soft
        soft = soft or any(bool(((site > 0) & (site < 1)).any()) for site in sample)
        return sample[0].argmax(-1).to(torch.float32) - sample[1].argmax(-1)

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        made.backward(f, logits)
    said = known.of(name, options)
    assert isinstance(made, Estimator)
    assert said.unbiased == made.unbiased
    assert ("soft" in said.needs) == soft
    assert ("slopes" in said.needs) == any("∂f/∂sample" in str(one.message) for one in warned)


def test_of_a_name_that_nobody_knows_nothing_is_known():
    assert known.of("steam", {}) == known.UNKNOWN == known.of("averaged", {"of": "steam"})
    assert known.of("reinmax of reinmax 0.1.0", {}).needs == ("slopes",)


def test_a_statement_names_the_cells_that_were_read_for_it(tmp_path):
    for number, (task, estimator) in enumerate((("width", "concrete"), ("depth", "concrete"), ("width", "relax")), 1):
        cell = made_rows.cell("overhead", task, estimator, preset="cpu", dataset="none")
        add(tmp_path, number, cell, table.row("time_ratio", 1.1, se=0.01, n=9))
    cells = {one.number: one.cells for one in statements.judged(table.read(tmp_path))}
    assert cells[7] == (f"{1:016x}", f"{2:016x}")
    assert cells[1] == ()


def test_a_number_and_a_failure_may_stand_together(tmp_path):
    for seed in range(3):
        cell = made_rows.cell("accuracy", "width", "rloo", seed=seed)
        bad = table.row("accuracy", None, n=0, part="test", status="diverged", message="NaN")
        add(tmp_path, seed + 1, cell, bad if seed == 2 else table.row("accuracy", 0.9, n=10, part="test"))
    frame = table.read(tmp_path)
    line = numbers.table(frame, summary.quantities(frame, "width"), numbers.Rows(frame))["rloo"]["test accuracy"]
    assert line[0] == 0.9
    assert line[3] == 2
    assert line[6] == "diverged: NaN"


# --- in a browser ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no chromium is installed")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def visited(browser, built):
    """A window with the page, and what it has asked for or complained of."""
    wrong = []
    window = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")

    def visit(state=""):
        tab = window.new_page()
        tab.set_default_timeout(120_000)  # milliseconds; a machine may be busy
        tab.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning", "trace") else None)
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        here = built.as_uri()
        tab.on("request", lambda one: None if one.url.startswith((here, "blob:", "data:")) else wrong.append(one.url))
        tab.goto(f"{here}{state}")
        tab.wait_for_selector("body[data-ready]")
        return tab

    yield visit, visit(), wrong
    window.close()


@pytest.fixture
def tab(visited):
    """The page as it is at first; it may neither ask for anything nor complain."""
    _, tab, wrong = visited
    yield tab
    assert wrong == []
    tab.set_viewport_size({"width": 1280, "height": 800})
    tab.locator("#reset").click()


def labels(tab):
    return tab.locator("#numbers tbody tr td:nth-child(2)").all_inner_texts()


def test_it_sorts_filters_and_a_link_brings_it_all_back(tab, visited):
    assert HOSTILE in labels(tab)
    assert tab.locator("#broken").count() == 0
    tab.locator("#numbers thead th", has_text="variance, tr Σ").click()
    assert labels(tab)[:3] == ["straight_through", "exact", "concrete"]
    assert set(labels(tab)[-2:]) == {"plain", HOSTILE}  # which have none
    tab.get_by_label("slopes ∂f/∂sample").uncheck()
    assert [name for name in labels(tab) if "concrete" in name or "straight" in name] == []
    tab.get_by_label("Search").first.fill("re")
    assert labels(tab) == ["relax", "reinforce", "plain"]  # which is a reference
    tab.locator("#c").fill("8")
    tab.locator("#theme").click()
    tab.locator("#chosen button", has_text="rloo").click()
    again = visited[0]("#" + tab.url.partition("#")[2])
    assert labels(again) == labels(tab)
    assert not again.get_by_label("slopes ∂f/∂sample").is_checked()
    assert again.locator("#c-value").inner_text() == tab.locator("#c-value").inner_text() == "100"
    assert again.locator("html.dark").count() == 1
    assert again.locator("#chosen button", has_text="rloo").count() == 0
    again.close()
    tab.locator("#reset").click()
    assert tab.url.endswith("#")
    assert len(labels(tab)) == len(NAMES) + 1


def test_dark_and_light_reach_the_figures(tab):
    colour = "document.querySelector('#figure-error .plot').layout.template.layout.font.color"
    light = tab.evaluate(colour)
    tab.locator("#theme").click()
    assert tab.locator("html.dark").count() == 1
    assert tab.evaluate(colour) != light


def test_figures_show_what_is_highlighted_and_what_can_be_had(tab):
    traces = "document.querySelector('#figure-bias .plot').data.filter(t => t.meta.role === 'point')"
    colours = f"Object.fromEntries({traces}.map(t => [t.meta.estimator, t.marker.color]))"
    before = tab.evaluate(colours)
    tab.locator("#chosen button", has_text="rloo").click()
    after = tab.evaluate(colours)
    assert [name for name in before if before[name] != after[name]] == ["rloo"]
    tab.get_by_label("no bias allowed").check()
    seen = tab.evaluate(f"{traces}.filter(t => t.visible).map(t => t.meta.estimator)")
    assert set(seen) == {"exact", "reinforce", "rloo", "relax"}


@pytest.mark.parametrize("figure", ["bias", "error", "curve", "accuracy", "profile"])
def test_pointing_at_a_figure_tells_what_is_there(tab, figure):
    said = tab.evaluate(f"""async () => {{
        const plot = document.querySelector('#figure-{figure} .plot');
        const curveNumber = plot.data.findLastIndex(t => t.visible && t.meta.role !== 'band' && t.hoverinfo !== 'skip');
        Plotly.Fx.hover(plot, [{{ curveNumber, pointNumber: 0 }}]);
        await new Promise(done => setTimeout(done, 200));
        return [plot.data[curveNumber].meta.estimator, plot.querySelector('.hoverlayer').textContent];
    }}""")
    assert said[0] in said[1]
    assert len(said[1]) > len(said[0]) + 10
    assert figure in ("error", "profile") or made_rows.PROVENANCE["commit"] in said[1]


def test_what_is_shown_can_be_saved(tab, tmp_path):
    tab.get_by_label("no bias allowed").check()
    with tab.expect_download() as saved:
        tab.locator("#compare .dt-button", has_text="CSV").click()
    saved.value.save_as(tmp_path / "numbers.csv")
    with open(tmp_path / "numbers.csv", encoding="utf-8-sig") as file:
        lines = {line["estimator"]: line for line in csv.DictReader(file)}
    assert "concrete" not in lines
    assert lines["exact"]["peak memory / plain"] == "failed: infeasible: 16^12 terms"
    assert 0.9 < float(lines["rloo"]["test accuracy"]) < 1
    assert float(lines["rloo"]["test accuracy: low"]) < float(lines["rloo"]["test accuracy: high"])
    assert lines["rloo"]["test accuracy: n"] == "3"
    with tab.expect_download() as saved:
        tab.locator("[data-csv=error]").click()
    saved.value.save_as(tmp_path / "error.csv")
    assert len((tmp_path / "error.csv").read_text().splitlines()) == 1 + 21 * 4
    with tab.expect_download() as saved:
        tab.locator("[data-svg=error]").click()
    saved.value.save_as(tmp_path / "error.svg")
    assert (tmp_path / "error.svg").read_text().startswith("<svg")


def press(tab, key, until):
    """A key again and again."""
    for _ in range(60):
        if tab.locator(until).count():
            return
        tab.keyboard.press(key)
    raise AssertionError(f"{key} never reaches {until}")


def test_keys_reach_the_numbers_and_say_where_they_come_from(tab):
    search = tab.get_by_label("Search").first
    search.fill("rloo")
    search.focus()
    press(tab, "Tab", "#numbers td.focus")
    press(tab, "ArrowRight", "#numbers td.focus button:not([aria-pressed])")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#origin[open]")
    assert "0123abcd" in tab.locator("#origin").inner_text()
    tab.keyboard.press("Escape")
    assert tab.locator("#origin[open]").count() == 0


def test_a_phone_needs_no_scrolling_sideways(tab):
    tab.set_viewport_size({"width": 375, "height": 800})
    assert tab.evaluate("document.documentElement.scrollWidth") == 375
    for _ in range(100):  # figures follow a little later
        if tab.evaluate("document.querySelector('#figure-error .main-svg').clientWidth") < 375:
            return
        tab.wait_for_timeout(100)
    raise AssertionError("the figures are wider than the screen")
