"""An estimator that another process can import, and that takes that process with it."""

import os
import sys

from estimators.rloo import Rloo


class Deadly(Rloo):
    """Says a word and ends the process."""

    def draw(self, logits: object, generator: object = None) -> None:  # type: ignore[override]
        print("a word\nand the last word", file=sys.stderr, flush=True)
        os._exit(7)
