"""The ten statements as the page shows them: a verdict each, its rule, the evidence, and the cells that were read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from results import statement
from results.statement import Statement


def shown(judged: Sequence[Statement]) -> list[dict[str, Any]]:
    """Each statement with its evidence, that which decides first."""
    return [
        {
            "number": one.number,
            "words": one.words,
            "verdict": one.verdict,
            "rule": one.rule,
            "p": statement.p_of(one),
            "open": one.open,
            "evidence": [
                {
                    "measure": test.measure,
                    "effect": statement.effect(test) if test.n else "not measured",
                    "threshold": statement.limit(test),
                    "n": f"{test.n:,}",
                    "where": test.where,
                }
                for test in one.evidence
            ],
            "cells": list(one.cells),
        }
        for one in judged
    ]
