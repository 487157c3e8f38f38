"""Evaluates finished cells: the table of rows, statistics, figures, verdicts and the report.

Nothing here needs torch, so results measured on one machine can be evaluated on any other.
"""
