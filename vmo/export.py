"""Export the network of a finished run: python -m vmo.export CHECKPOINT --to DIR.

These files are written to DIR. The network maps normalised images `(B, C, H, W)` to logits `(B, classes)`.

    config.json        the network's WideResNetConfig, mean and std of the normalisation, class names, input shape
    model.safetensors  its weights
    model.pt2          a program of torch.export
    model.onnx         the same for other runtimes, if the extra `export` is installed
    table.md           parameters, MACs, latency and accuracy; also printed

`load` reads the first two, without pickle and without any training code. See docs/how-to/export.md.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from vmo import export_arguments, partial
from vmo.config import WideResNetConfig
from vmo.export_arguments import EXTRA, INSTALL
from vmo.wrn import WideResNet

FILES = ("config.json", "model.safetensors", "model.pt2", "model.onnx", "table.md")
FORMAT = 1
TOLERANCE = 1e-4
"""Largest allowed difference of a written program's logits, relative to the largest logit if that is above 1."""


def load(folder: str | os.PathLike[str]) -> WideResNet:
    """The network in `folder`, on the CPU and in eval mode. Its input is normalised images.

    Raises:
        OSError: config.json or model.safetensors cannot be read.
        ValueError: config.json has another format version.
    """
    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    if config.get("format") != FORMAT:
        raise ValueError(f"{folder}: config.json has format {config.get('format')}, but this version reads {FORMAT}")
    shape = config["network"]
    with torch.random.fork_rng(devices=[]):  # making the network draws initial weights, which are overwritten
        network = WideResNet(WideResNetConfig(**{**shape, "hidden": tuple(shape["hidden"])}))
    network.load_state_dict(safetensors.torch.load_file(Path(folder) / "model.safetensors"))
    return network.eval()


def write(folder: Path, network: WideResNet, config: dict[str, Any], images: Tensor, onnx: bool) -> dict[str, float]:
    """Write everything except the table, and check the written programs.

    Args:
        folder: an existing directory.
        network: the compact network, on the CPU, in eval mode.
        config: further entries of config.json.
        images: normalised, `(B, C, H, W)`; programs and network are compared on them.
        onnx: whether to write model.onnx.

    Returns:
        for each program, the largest difference of its logits from the network's.

    Raises:
        OSError: a file cannot be written.
        ValueError: the logits of a program differ from the network's.
    """
    about = {"format": FORMAT, "network": asdict(network.config), **config}
    (folder / "config.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    (folder / "model.safetensors").write_bytes(safetensors.torch.save(tensors, {"format": "pt"}))
    program = _program(network, images)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    (folder / "model.pt2").write_bytes(buffer.getvalue())
    found = {"model.pt2": _difference(network, torch.export.load(folder / "model.pt2").module(), images)}
    if onnx:
        torch.onnx.export(
            program,
            (),
            folder / "model.onnx",
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: "batch"},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        found["model.onnx"] = _difference(network, _onnx_session(folder / "model.onnx"), images)
    return found


def _program(network: WideResNet, images: Tensor) -> torch.export.ExportedProgram:
    """The network as an exported program for any number of images."""
    plain = copy.deepcopy(network)
    for parameter in plain.parameters():  # torch.export.save warns of weights in another memory format
        parameter.data = parameter.data.contiguous()
    example = images[:2] if len(images) > 1 else images.expand(2, -1, -1, -1)  # one image would fix the number
    program = torch.export.export(plain, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # contains folder names of this machine
    return program


def _onnx_session(path: Path) -> Any:
    import onnxruntime  # installed by an extra

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


@torch.no_grad()
def _difference(network: nn.Module, program: Any, images: Tensor) -> float:
    """Largest difference of logits, for one image and for all at once. Raises ValueError if it is too large."""
    worst = 0.0
    for part in (images[:1], images):
        expected, got = network(part), program(part.contiguous())
        difference = float((got - expected).abs().max())
        if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
            raise ValueError(f"the logits of a written program differ by {difference:.1e} from the network's")
        worst = max(worst, difference)
    return worst


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0, or 2 after an error."""
    parser = argparse.ArgumentParser(
        prog="python -m vmo.export", description="Export the compact network of a finished run of the accuracy suite."
    )
    export_arguments.add(parser)
    args = parser.parse_args(argv)
    try:
        return run(args)
    except (ValueError, OSError, ArithmeticError) as error:  # one line that says what and where
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def run(args: Any) -> int:
    """Export as the options say and print the table. Raises ValueError or OSError with a message of one line."""
    print(_export(args))
    return 0


def _export(args: Any) -> str:
    from vmo import compact  # imports the training code, which `load` does not need
    from vmo.data import normalise

    if args.fine_tune < 0:
        raise ValueError(f"--fine-tune must not be negative, got {args.fine_tune}")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: this machine has no CUDA device that PyTorch can use")
    missing = [name for name in EXTRA if importlib.util.find_spec(name) is None]
    if args.onnx and missing:
        raise ValueError(f"--onnx needs {', '.join(missing)}: {INSTALL}")
    onnx = not missing if args.onnx is None else args.onnx
    run = compact.read(args.checkpoint)
    device = "cuda" if args.device != "cpu" and torch.cuda.is_available() else "cpu"
    with _staged(args.to) as folder:  # fails early if the folder is not writable
        dataset = compact.dataset(run, args.data_root, device)
        if (dataset.classes, dataset.shape[0]) != (run.network.config.classes, run.network.config.channels):
            raise ValueError(f"the {dataset.name} found here differs in classes or channels from the run's")

        def report(epoch: int, loss: float) -> None:
            print(f"fine-tuning: epoch {epoch} of {args.fine_tune}, loss {loss:.4f}", file=sys.stderr)

        network = compact.compact(run, dataset, fine_tune=args.fine_tune, progress=report)
        table = compact.comparison(run, network, dataset, args.fine_tune)
        config = {
            "input_shape": list(dataset.shape),
            "mean": list(dataset.mean),
            "std": list(dataset.std),
            "class_names": compact.class_names(dataset),
            **run.data.recorded(),
            "task": run.task,
            "fine_tuned_epochs": args.fine_tune,
        }
        images = normalise(dataset.test.images[:32], dataset).cpu()
        differences = write(folder, network.cpu(), config, images, onnx)
        apart = ", ".join(f"{name} {value:.1g}" for name, value in differences.items())
        table += f"\nLargest difference of logits from torch's: {apart}."
        if not onnx:
            reason = f"it needs {INSTALL}" if args.onnx is None else "as requested"
            table += f"\nNot written: model.onnx ({reason})."
        (folder / "table.md").write_text(table + "\n", encoding="utf-8")
    return table


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A temporary folder. Without an error, its files replace those in `folder` at the end."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stack = ExitStack()
        inside = stack.enter_context(partial.folder(folder, "export"))
    except OSError as error:
        raise ValueError(f"--to {folder} cannot be written: {error.strerror}") from None
    with stack:
        yield inside
        for name in FILES:
            made = inside / name
            if made.exists():
                os.replace(made, folder / name)
            else:  # a file of an earlier export belongs to another network
                (folder / name).unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
