"""The resolved configuration of a command, beside its rows: OUT/commands/NAME.yaml, to be given again by `--config`.

It has every setting, at the value that was used, so that it asks for the same cells where a preset has changed since.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

if TYPE_CHECKING:
    from suites.settings import Preset

TRANSIENT = ("config", "dry_run", "list", "help", "json", "quiet", "verbose")
"""What does not belong to what is measured."""


def save(parser: ArgumentParser, args: Namespace, preset: Preset, folder: Path) -> Path:
    """Write it, under a name made of its content; the same command has the same file."""
    kept = args.clone()
    for name in TRANSIENT:
        kept.pop(name)
    kept["target_macs"] = None  # it is among the settings
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
