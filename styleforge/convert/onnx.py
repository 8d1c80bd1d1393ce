"""Generators as ONNX graphs, for runtimes without PyTorch."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from styleforge.checkpoint import Checkpoint
from styleforge.convert.card import make_card
from styleforge.convert.graphs import Noise, Part, make_graph, trace
from styleforge.files import atomic_path
from styleforge.networks import Generator

OPSET = 18
"""Version of ONNX's operators: the lowest that PyTorch's exporter writes by itself, for the most runtimes."""
TOLERANCE = 1e-3
"""Largest difference between ONNX Runtime and PyTorch that counts as the same."""


def export(
    G: Generator,
    path: str | Path,
    *,
    part: Part = "whole",
    noise: Noise = "const",
    truncation_cutoff: int | None = None,
    opset: int = OPSET,
    card: Mapping[str, Any] | None = None,
) -> None:
    """Writes a generator as an ONNX graph in one file; the batch may have any size.

    Inputs are ``z`` [N, Z], ``truncation_psi`` [] and, for a conditional network, ``c`` [N, C]; of the synthesis
    network ``ws`` [N, L, W]; with ``noise="input"`` also ``noise0``, ``noise1``, … [N, 1, h, w] in the order of
    ``G.synthesis.noise_inputs()``. The output is ``img`` [N, C, H, W], about in [-1, 1], or ``ws``.

    Args:
        G: The generator; a progressive one is taken at full resolution.
        path: Target file, ending with ``.onnx``.
        part: ``mapping``, ``synthesis``, or ``whole`` for both.
        noise: ``const`` puts the network's own maps into the graph, ``input`` makes them inputs, ``none`` leaves noise
            out.
        truncation_cutoff: Number of layers that are truncated; None for all.
        opset: Version of ONNX's operators; it is written into the file.
        card: Facts that go into the file's metadata; None for those about the network alone.

    Raises:
        ValueError: An unknown part or kind of noise, or ONNX is not installed.
        OSError: The file cannot be written.
    """
    _require("onnx", "onnxscript")
    graph = make_graph(G, part, noise, truncation_cutoff)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's remarks on its own internals
        converted = torch.onnx.export(
            trace(graph), (), kwargs=graph.inputs, dynamic_shapes=graph.dynamic_shapes, dynamo=True,
            opset_version=opset, input_names=graph.names, output_names=[graph.output], verbose=False,
        )  # fmt: skip
    assert converted is not None
    card = make_card(Checkpoint(G_ema=G)) if card is None else card
    facts = {"styleforge": json.dumps(dict(card)), "part": part, "noise": noise, "opset": str(opset)}
    converted.model.metadata_props.update(facts)
    with atomic_path(path) as temporary:
        converted.save(temporary, external_data=False)


def run(path: str | Path, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """What ONNX Runtime makes of inputs, on the CPU.

    Raises:
        ValueError: It is not installed.
    """
    _require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    output: np.ndarray = session.run(None, {name: np.asarray(value) for name, value in inputs.items()})[0]
    return output


@torch.no_grad()
def largest_difference(
    G: Generator,
    path: str | Path,
    *,
    part: Part = "whole",
    noise: Noise = "const",
    truncation_cutoff: int | None = None,
    batches: Sequence[int] = (1, 3),
    truncations: Sequence[float] = (1.0, 0.5),
) -> float:
    """The largest difference between ONNX Runtime and PyTorch over batch sizes and truncations.

    Args:
        G: The generator on the CPU, as it was given to `export`.
        path: The file that `export` wrote.
        part: As it was given to `export`.
        noise: As it was given to `export`.
        truncation_cutoff: As it was given to `export`.
        batches: Batch sizes.
        truncations: Values of psi.

    Raises:
        ValueError: ONNX Runtime is not installed.
    """
    graph = make_graph(G, part, noise, truncation_cutoff)
    rng, worst = torch.Generator().manual_seed(0), 0.0
    for num in batches:
        for psi in truncations if part != "synthesis" else (1.0,):
            inputs = {
                name: torch.randn(num, *x.shape[1:], generator=rng) if x.ndim else torch.tensor(psi)
                for name, x in zip(graph.names, graph.tensors, strict=True)
            }
            maps = [x for name, x in inputs.items() if name.startswith("noise")]
            named = {name: x for name, x in inputs.items() if not name.startswith("noise")}
            want = graph.module(**named, **({"noise": maps} if maps else {})).numpy()
            got = run(path, {name: x.numpy() for name, x in inputs.items()})
            worst = max(worst, float(np.abs(want - got).max()))
    return worst


def _require(*modules: str) -> None:
    """Says how to install what is missing."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise ValueError(
                f'ONNX: got no package {module!r}, expected it to be installed: pip install "styleforge[onnx]"'
            )
