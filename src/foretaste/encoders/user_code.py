"""`package.module:callable` and `file.py:callable`: the user's own network.

This imports and runs code, and so only ever gets what the user named on the command line or in their audit file; never
a name that was read from a weight file.
"""

from __future__ import annotations

from torch import nn

from foretaste.errors import EncoderError
from foretaste.user_modules import FAILURES, cause, file_of, importable, load


def call(reference: str) -> nn.Module:
    """Import what the reference names, call it without arguments and return its network.

    A file's own folder, or for a package the current folder, is importable meanwhile and not afterwards.

    Args:
        reference: `package.module:callable` or `file.py:callable`.

    Raises:
        EncoderError: no such file, module or attribute; the code raised; the result is no nn.Module.
    """
    place, _, name = reference.rpartition(":")
    module = load(place, f"--encoder {reference}", EncoderError)
    make = getattr(module, name, None)
    if not callable(make):
        found = "no such name" if make is None else f"a {type(make).__name__}"
        raise EncoderError(f"--encoder {reference}: {name!r} to be a callable of {place}", got=found)
    file = file_of(place)
    with importable(place):
        try:
            network = make()
        except FAILURES as error:
            raise EncoderError(
                f"--encoder {reference}: {name}() to return a network",
                got=cause(error, None if file is None else file.resolve()),
                do="it is called without arguments; give it defaults",
            ) from error
    if not isinstance(network, nn.Module):
        raise EncoderError(f"--encoder {reference}: {name}() to return an nn.Module", got=f"a {type(network).__name__}")
    return network
