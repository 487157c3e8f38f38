"""Saves the resolved configuration of a command as OUT/commands/NAME.yaml, which `--config` reads.

It contains every setting with the value that was used. So it requests the same cells even if a preset changes later.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

if TYPE_CHECKING:
    from suites.settings import Preset

TRANSIENT = ("config", "dry_run", "list", "help", "json", "quiet", "verbose")
"""Options that do not affect the measurements."""


def save(parser: ArgumentParser, args: Namespace, preset: Preset, folder: Path) -> Path:
    """Write the configuration, under a name made from its content: the same command has the same file."""
    kept = args.clone()
    for name in TRANSIENT:
        kept.pop(name)
    kept["target_macs"] = None  # the settings contain it
    kept["set"] = [
        f"{name}.{field}={value}"
        for name, group in preset.groups.items()
        for field, value in group.model_dump().items()
    ]
    text = parser.dump(kept)
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:8]}.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
