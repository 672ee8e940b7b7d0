"""Self-supervised training of small encoders, without labels. Importing this package imports no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from foretaste.errors import SpecError

if TYPE_CHECKING:
    from foretaste.pretrain.simclr import SimCLR

METHODS: dict[str, tuple[str, str]] = {
    # name: (where it is, one line)
    "simclr": (
        "foretaste.pretrain.simclr:SimCLR",
        "SimCLR: two views of an image agree, those of the others differ (NT-Xent)",
    ),
}


def find(name: str) -> type[SimCLR]:
    """The class of a method.

    Raises:
        SpecError: there is no such method; the message lists what there is.
    """
    if name not in METHODS:
        raise SpecError(f"method: one of {', '.join(METHODS)}", got=repr(name), do="see `foretaste list`")
    module, _, attribute = METHODS[name][0].partition(":")
    found: Any = getattr(import_module(module), attribute)
    return found  # type: ignore[no-any-return]
