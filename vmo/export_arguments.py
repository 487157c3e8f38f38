"""The command-line options of `vmo.export`, in a module of their own so that `--help` does not import torch."""

from __future__ import annotations

import argparse
from pathlib import Path

EXTRA = ("onnx", "onnxruntime", "onnxscript")
INSTALL = "pip install onnx onnxruntime onnxscript"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options to a parser."""
    parser.add_argument("checkpoint", type=Path, help="checkpoint of the run: OUT/checkpoints/HASH.safetensors")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder to write the files to")
    parser.add_argument("--data-root", type=Path, help="folder of the data sets; default: $VMO_DATA, else data")
    parser.add_argument(
        "--fine-tune",
        type=int,
        default=0,
        metavar="M",
        help="train the compact network for M more epochs, at the run's last learning rate; default: 0",
    )
    parser.add_argument(
        "--onnx",
        action=argparse.BooleanOptionalAction,
        help=f"always or never write model.onnx; by default it is written if {', '.join(EXTRA)} are installed",
    )
    parser.add_argument(
        "--device", default="auto", choices=("auto", "cpu", "cuda"), help="device to compute and measure on"
    )
