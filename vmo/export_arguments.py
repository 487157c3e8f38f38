"""The options of `vmo.export`, apart from what does it, so that reading them imports no torch."""

from __future__ import annotations

import argparse
from pathlib import Path

EXTRA = ("onnx", "onnxruntime", "onnxscript")
INSTALL = "pip install 'vmo-gradient-bench[export]'"


def add(parser: argparse.ArgumentParser) -> None:
    """Add them to a parser."""
    parser.add_argument("checkpoint", type=Path, help="OUT/checkpoints/HASH.safetensors")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="where the files go")
    parser.add_argument("--data-root", type=Path, help="where data sets lie; by default $VMO_DATA or data")
    parser.add_argument(
        "--fine-tune",
        type=int,
        default=0,
        metavar="M",
        help="train the compact network for M epochs by the run's recipe, at its last learning rate; 0: not",
    )
    parser.add_argument(
        "--onnx",
        action=argparse.BooleanOptionalAction,
        help=f"insist on model.onnx, or leave it out; by default it is written where {', '.join(EXTRA)} are installed",
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="to compute and measure on")
