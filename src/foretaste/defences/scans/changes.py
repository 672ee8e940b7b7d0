"""Which tensors of two encoders of one architecture differ, and by how much."""

from __future__ import annotations

from torch import Tensor, nn

from foretaste.errors import EncoderError


def changed_tensors(before: nn.Module, after: nn.Module) -> list[tuple[str, float]]:
    """Names of the tensors whose bytes differ, with ||after - before|| / ||before||, the largest first.

    A tensor that was zero counts relative to 1. Buffers (BatchNorm statistics) are tensors like any other.

    Raises:
        EncoderError: the two have other tensors or shapes.
    """
    old, new = before.state_dict(), after.state_dict()
    require_same_tensors(old, new)
    found = []
    for name, tensor in old.items():
        one, two = tensor.detach().cpu().double(), new[name].detach().cpu().double()
        if not one.equal(two):
            found.append((name, float((two - one).norm() / (one.norm() or 1.0))))
    return sorted(found, key=lambda pair: (-pair[1], pair[0]))


def require_same_tensors(expected: dict[str, Tensor], found: dict[str, Tensor], what: str = "reference") -> None:
    """Two state dicts of one architecture.

    Raises:
        EncoderError: names or shapes differ.
    """
    odd = sorted(expected.keys() ^ found.keys())
    odd += [f"{key} {list(found[key].shape)}" for key in expected if key not in odd and _differ(expected, found, key)]
    if odd:
        raise EncoderError(
            f"{what}: an encoder of the suspect's architecture",
            got=f"{len(odd)} tensors that differ in name or shape ({', '.join(odd[:3])})",
            do="use encoders of one architecture and width",
        )


def _differ(one: dict[str, Tensor], two: dict[str, Tensor], key: str) -> bool:
    return one[key].shape != two[key].shape
