"""What the wheel carries of the reference: its rows, packed into one file, and no figures."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

REFERENCE = "results/reference/rows"


class PackRows(BuildHookInterface):  # type: ignore[type-arg]
    """Packs the reference rows, which stand in files of single cells in a checkout and in an sdist."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel is built; an editable one reads the checkout."""
        if version == "editable":
            return
        sys.path.insert(0, self.root)
        from results import packed, table  # need nothing but the standard library for this

        self._folder = tempfile.TemporaryDirectory()
        file = table.pack(Path(self.root) / REFERENCE, Path(self._folder.name) / packed.NAME)
        build_data["force_include"][str(file)] = f"{REFERENCE}/{packed.NAME}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called after the wheel is built."""
        if version != "editable":
            self._folder.cleanup()
