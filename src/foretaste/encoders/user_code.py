"""`package.module:callable` and `file.py:callable`: the user's own network.

This imports and runs code, and so only ever gets what the user named on the command line or in their audit file; never
a name that was read from a weight file.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from torch import nn

from foretaste.errors import EncoderError


def call(reference: str) -> nn.Module:
    """Import what the reference names, call it without arguments and return its network.

    A file's own folder, or for a package the current folder, is importable meanwhile and not afterwards.

    Args:
        reference: `package.module:callable` or `file.py:callable`.

    Raises:
        EncoderError: no such file, module or attribute; the code raised; the result is no nn.Module.
    """
    place, _, name = reference.rpartition(":")
    file = Path(place).expanduser() if place.endswith(".py") else None
    if file is not None and not file.is_file():
        raise EncoderError(f"--encoder {reference}: a Python file", got=f"no file at {file}")
    with _importable(Path.cwd() if file is None else file.resolve().parent, first=file is not None):
        try:
            module = importlib.import_module(place) if file is None else _import_file(file.resolve())
        except (Exception, SystemExit) as error:
            raise EncoderError(f"--encoder {reference}: code that can be imported", got=_cause(error)) from error
        make = getattr(module, name, None)
        if not callable(make):
            found = "no such name" if make is None else f"a {type(make).__name__}"
            raise EncoderError(f"--encoder {reference}: {name!r} to be a callable of {place}", got=found)
        try:
            network = make()
        except (Exception, SystemExit) as error:
            raise EncoderError(
                f"--encoder {reference}: {name}() to return a network",
                got=_cause(error),
                do="it is called without arguments; give it defaults",
            ) from error
    if not isinstance(network, nn.Module):
        raise EncoderError(f"--encoder {reference}: {name}() to return an nn.Module", got=f"a {type(network).__name__}")
    return network


@contextmanager
def _importable(folder: Path, *, first: bool) -> Iterator[None]:
    before = sys.path[:]
    sys.path.insert(0 if first else len(sys.path), str(folder))
    try:
        yield
    finally:
        sys.path[:] = before


def _import_file(file: Path) -> ModuleType:
    """Under a name of its own, so that no file can take the place of another module."""
    name = f"foretaste_user_{hashlib.sha256(str(file).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"no loader for {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and type hints look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _cause(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
