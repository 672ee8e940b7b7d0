"""Modules of the user's own, from a file or a package. This runs code: it only gets what the user named."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

from foretaste.errors import ForetasteError

FAILURES = (Exception, SystemExit)
"""What code of the user's may raise, and is then told in one line."""


def load(place: str, what: str, error: type[ForetasteError]) -> ModuleType:
    """The module at `file.py` or `package.module`, imported now or already; its neighbours can be imported meanwhile.

    A file is executed once in a process, and again if its content has changed.

    Args:
        place: as the user named it; a file's path ends in `.py`.
        what: starts the messages, such as "attack mine.py:Mine".
        error: the class of what is raised.

    Raises:
        ForetasteError: no such file or module, or the code raised.
    """
    file = file_of(place)
    if file is not None and not file.is_file():
        raise error(f"{what}: a Python file", got=f"no file at {file}", do="correct the path")
    with importable(place):
        try:
            return importlib.import_module(place) if file is None else _executed(file.resolve())
        except FAILURES as failure:
            source = None if file is None else file.resolve()
            raise error(f"{what}: code that can be imported", got=cause(failure, source), do="correct it") from failure


def file_of(place: str) -> Path | None:
    """The file that a place is; None for a module."""
    return Path(place).expanduser() if place.endswith(".py") else None


@contextmanager
def importable(place: str) -> Iterator[None]:
    """A file's own folder first, or for a module the current folder last, can be imported from, and not afterwards."""
    file = file_of(place)
    before = sys.path[:]
    if file is None:
        sys.path.append(str(Path.cwd()))
    else:
        sys.path.insert(0, str(file.resolve().parent))
    try:
        yield
    finally:
        sys.path[:] = before


def digest_of_source(module: ModuleType) -> str:
    """First 16 hex digits of the sha256 of what was executed; empty where there is no file."""
    if (known := getattr(module, "__foretaste_digest__", None)) is not None:
        return str(known)
    path = getattr(module, "__file__", None)
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16] if path and Path(path).is_file() else ""


def digest_of_class(one: type) -> str:
    """First 16 hex digits of the sha256 of what a class executes, for one that was typed into a notebook."""
    functions = [getattr(value, "__func__", value) for _, value in sorted(vars(one).items())]
    texts = [_text_of(function.__code__) for function in functions if isinstance(function, FunctionType)]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def _text_of(code: CodeType) -> str:
    constants = [_text_of(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts]
    return f"{code.co_name} {code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"


def cause(failure: BaseException, source: Path | None = None) -> str:
    """Type and message of an exception, and the line of the user's file where it came from."""
    line = None
    if isinstance(failure, SyntaxError):
        line, text = failure.lineno, str(failure.msg)
    else:
        text = str(failure)
        frames = traceback.extract_tb(failure.__traceback__)
        line = next((frame.lineno for frame in reversed(frames) if source and frame.filename == str(source)), None)
    return f"{type(failure).__name__}: {text}" + (f" (line {line} of {source.name})" if line and source else "")


def _executed(file: Path) -> ModuleType:
    """Under a name of its own, so that no file can take the place of another module.

    What is digested is what is executed: bytecode that lies beside the file may be of an earlier version.
    """
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:16]
    name = f"foretaste_user_{hashlib.sha256(f'{file} {digest}'.encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None:
        raise ImportError(f"no loader for {file}")
    module = importlib.util.module_from_spec(spec)
    module.__dict__["__foretaste_digest__"] = digest
    sys.modules[name] = module  # dataclasses and type hints look their module up
    try:
        exec(compile(content, str(file), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module
