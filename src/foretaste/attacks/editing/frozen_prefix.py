"""A network in two: what its trained weights do not touch, which is computed once per image, and the rest.

The split is found in the network's own graph (torch.fx): an operation belongs to the suffix if it uses a trained
parameter or what such an operation gives. Shortcuts around the first trained layer are carried over beside its input.
A split is believed only after a trial: on batches of two sizes both parts together must give the network's own output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from foretaste.encoders.base import Encoder
from foretaste.runtime import Runtime

Activations = tuple[Tensor, ...]
"""What enters the suffix for a batch of images: float [B, ...] each; without a split the uint8 images themselves."""

LIKENESS = 1e-4
"""Largest deviation from the network's own output in the trial, relative to its largest entry."""


@dataclass(frozen=True, eq=False)
class Split:
    """Graphs of a body's two parts; they name its modules and parameters, and so serve every copy of it."""

    prefix: fx.Graph
    suffix: fx.Graph

    def enter(self, encoder: Encoder, pixels: Tensor, runtime: Runtime) -> Activations:
        """Activations of uint8 images [B, 3, H, W], without gradients, on the runtime's device."""
        first = fx.GraphModule(encoder.body, self.prefix)
        with torch.no_grad(), runtime.autocast():
            found: Activations = first(encoder.prepared(runtime.images(pixels)))
        return found


def split_body(encoder: Encoder, names: Sequence[str], images: Tensor) -> Split | None:
    """The split before the first of some parameters; None where there is nothing before it or the graph is unknown.

    Unknown are graphs of networks whose Python code depends on the values it computes, and networks of which no
    module boundary or operation separates the two parts.

    Args:
        encoder: in eval mode.
        names: of the trained parameters of `encoder.body`.
        images: float [B, 3, H, W] in [0, 1], at least two, for the trial.
    """
    body = encoder.body
    with torch.no_grad():
        batches = [encoder.prepared(images[:2]), encoder.prepared(torch.cat([images[:2], images[:1]]))]
        for tracer in (_Inside(body, names), _Blocks()):
            try:
                found = _cut(body, tracer.trace(body), names, batches)
                if found is not None and all(_same(body, found, batch) for batch in batches):
                    return found
            except Exception:  # any user's code runs here, and whatever it raises: no split
                continue
    return None


class _Inside(fx.Tracer):
    """Looks into every module that holds a trained parameter; others are one operation each."""

    def __init__(self, body: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        owners = (name.rpartition(".")[0].split(".") for name in names)
        self.holders = {body.get_submodule(".".join(o[:k])) for o in owners for k in range(len(o) + 1)}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m not in self.holders or super().is_leaf_module(m, module_qualified_name)


class _Blocks(fx.Tracer):
    """Opens containers only: a block whose code cannot be traced is one operation."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not isinstance(m, nn.Sequential)


def _cut(body: nn.Module, graph: fx.Graph, names: Sequence[str], batches: Sequence[Tensor]) -> Split | None:
    late = set[fx.Node]()
    for node in graph.nodes:
        own = isinstance(node.target, str) and node.op in ("get_attr", "call_module")
        owns = own and any(f"{name}.".startswith(f"{node.target}.") for name in names)
        if owns or node.op == "output" or any(source in late for source in node.all_input_nodes):
            late.add(node)
    rows = _per_image(body, graph, batches)
    again = set(late)  # sizes, constants and the like are computed in both parts: only rows can be kept per image
    while True:
        edge = [n for n in graph.nodes if n not in again and any(user in again for user in n.users)]
        stray = {node for node in edge if node not in rows}
        if not stray:
            break
        again |= stray
    if not edge or any(node.op == "placeholder" for node in edge):
        return None
    prefix, suffix = fx.Graph(), fx.Graph()
    early = dict[fx.Node, fx.Node]()
    for node in graph.nodes:
        if node not in late:
            early[node] = prefix.node_copy(node, early.__getitem__)
    prefix.output(tuple(early[node] for node in edge))
    copies = {node: suffix.placeholder(f"entered_{number}") for number, node in enumerate(edge)}
    for node in graph.nodes:
        if node in again:
            copies[node] = suffix.node_copy(node, copies.__getitem__)
    return Split(prefix, suffix)


def _per_image(body: nn.Module, graph: fx.Graph, batches: Sequence[Tensor]) -> set[fx.Node]:
    """Nodes that give one floating-point row per image, whatever the batch."""

    class Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            value = super().run_node(n)
            if isinstance(value, Tensor) and value.is_floating_point() and value.ndim and len(value) == size:
                seen.add(n)
            return value

    found = set(graph.nodes)
    for batch in batches:
        seen, size = set[fx.Node](), len(batch)
        Watch(fx.GraphModule(body, graph)).run(batch.clone())
        found &= seen
    return found


def _same(body: nn.Module, split: Split, batch: Tensor) -> bool:
    expected: Tensor = body(batch.clone())
    entered = fx.GraphModule(body, split.prefix)(batch.clone())
    found: Tensor = fx.GraphModule(body, split.suffix)(*entered)
    off = (found.float() - expected.float()).abs().max()
    return found.shape == expected.shape and bool(off <= LIKENESS * expected.float().abs().max())
