"""From finished cells to evidence: the table of rows, statistics on it, figures, verdicts and the report.

Nothing here needs torch, so that a table measured on one machine can be read and drawn on any other.
"""
