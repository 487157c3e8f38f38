"""One HTML page from rows alone: tables to sort and filter, figures to point at, and where each number comes from.

The page holds its own libraries and data, and makes no request. Numbers, intervals and verdicts are those of
`results.summary`, `results.contest` and `results.statements`; here they are only arranged.

    page       puts the page together
    places     which rows are compared: a task, a preset and a data set
    numbers    the table of estimators and measures, and the rows behind each number
    ranks      ranks on each task, and performance profiles
    contests   what the error at equal compute is made of
    gradients  figures of bias, variance and that error
    training   figures of training runs
    verdicts   the ten statements
"""

from results.explorer.page import FILE, build

__all__ = ["FILE", "build"]
