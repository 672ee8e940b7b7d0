"""Reading .npz files that nobody vouches for: no pickles, and no more memory than the file's own headers admit."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from foretaste.data.arrays import Part, assemble
from foretaste.data.base import Dataset
from foretaste.errors import DataError

SIZE_LIMIT = 8 * 2**30
"""Bytes that the arrays read from one file, or the images of one folder, may take (ImageNet at 32x32 is half of it)."""

RATIO_LIMIT, RATIO_FREE = 200, 2**28
"""An array over `RATIO_FREE` bytes that was stored in less than 1/`RATIO_LIMIT` of them is a bomb, not images."""

SIPS = {zipfile.ZIP_STORED: 2**20, zipfile.ZIP_DEFLATED: 2**20, zipfile.ZIP_LZMA: 2**12}
"""Bytes per read, by compression. zipfile unpacks a whole LZMA read before it looks at the declared size, so reads stay
small there (4 KiB make some 30 MB). bzip2, which makes 4 GB from 4 KiB, is not accepted; numpy never writes it."""


def load_npz(path: Path) -> Dataset:
    """Labelled images from a file as `np.savez` writes it.

    Keys: `x_train`, `y_train` and, for a test part, `x_test`, `y_test`; or `x`, `y`. Images are uint8 [N, H, W, C],
    [N, C, H, W] or [N, H, W] with one or three channels, labels integers [N]. `classes`, if there, holds the names by
    label. Other keys are not read.

    Raises:
        DataError: see `read_arrays` and `arrays.assemble`.
    """
    there = keys(path)
    prefixes = ("x", "y")
    pairs = [tuple(f"{prefix}_{part}" for prefix in prefixes) for part in ("train", "test")]
    if not any(key in there for key in pairs[0]):
        pairs = [prefixes]
    elif not any(key in there for key in pairs[1]):
        pairs = pairs[:1]
    wanted = [key for pair in pairs for key in pair]
    if missing := [key for key in wanted if key not in there]:
        raise DataError(
            f"{path}: keys x_train, y_train (and x_test, y_test), or x, y",
            got=_lack(missing, there),
            do="save the arrays under these keys",
        )
    arrays = read_arrays(path, [*wanted, "classes"] if "classes" in there else wanted)
    parts = [Part(str(path), arrays[x], arrays[y], x, y) for x, y in pairs]
    names = class_names(path, arrays["classes"]) if "classes" in arrays else None
    return assemble(path.name, *parts, classes=names)


def keys(path: Path) -> list[str]:
    """Names of the arrays in an .npz file.

    Raises:
        DataError: no such file, or not an .npz file.
    """
    with _archive(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def read_arrays(path: Path, names: Sequence[str], *, limit: int = SIZE_LIMIT) -> dict[str, NDArray[Any]]:
    """The named arrays of an .npz file; nothing else in it is touched.

    Args:
        path: the file.
        names: keys to read.
        limit: bytes that they may take together.

    Raises:
        DataError: no such file or key; truncated or damaged; a pickle; more than `limit` bytes; compressed beyond
            `RATIO_LIMIT`; or an array that does not have the size its own header declares.
    """
    with _archive(path) as archive:
        members = {name.removesuffix(".npy"): name for name in archive.namelist()}
        if missing := [name for name in names if name not in members]:
            raise DataError(f"{path}: keys {', '.join(names)}", got=_lack(missing, list(members)))
        infos = {name: archive.getinfo(members[name]) for name in names}
        _check_sizes(path, infos, limit)
        return {name: _read(archive, info, f"{path}: {name}") for name, info in infos.items()}


def _lack(missing: Sequence[str], there: Sequence[str]) -> str:
    listed = f"{', '.join(there[:12])}{', ...' if len(there) > 12 else ''}" if there else "no keys at all"
    return f"no {' and no '.join(missing)} among {listed}"


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing there"
        raise DataError(f"{path}: an .npz file", got=found, do="correct the path")
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except DataError:
        raise
    # Parsers of damaged bytes raise whatever they run into: zlib.error, LZMAError, EOFError, TokenError, ...
    except Exception as error:
        raise DataError(
            f"{path}: a whole .npz file", got=f"{type(error).__name__}: {error}", do="save or download it again"
        ) from error


def _check_sizes(path: Path, infos: dict[str, zipfile.ZipInfo], limit: int) -> None:
    total = sum(info.file_size for info in infos.values())
    if total > limit:
        raise DataError(
            f"{path}: arrays of at most {limit:,} bytes in all", got=f"{total:,} bytes", do="save fewer rows"
        )
    for name, info in infos.items():
        if info.compress_type not in SIPS:
            raise DataError(
                f"{path}: {name} stored plainly, or packed by deflate or LZMA",
                got=f"zip compression {info.compress_type}",
                do="save it with np.savez",
            )
        if info.file_size > RATIO_FREE and info.file_size > RATIO_LIMIT * info.compress_size:
            raise DataError(
                f"{path}: {name} packed at most {RATIO_LIMIT} to 1",
                got=f"{info.file_size:,} bytes packed in {info.compress_size:,} (a zip bomb)",
                do="save it with np.savez if it is yours",
            )


class _Sips:
    """A file whose reads are short; numpy asks again until it has the header."""

    def __init__(self, file: Any, size: int) -> None:
        self._file, self._size = file, size

    def read(self, size: int) -> bytes:
        return cast(bytes, self._file.read(min(size, self._size)))


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> NDArray[Any]:
    sip = SIPS[info.compress_type]
    with archive.open(info) as member:
        header = cast(Any, _Sips(member, sip))
        # Version 1 has a header of at most 64 KiB; numpy writes the later ones for long records only.
        if (version := np.lib.format.read_magic(header)) != (1, 0):
            raise DataError(f"{where}: an array in npy format 1.0", got=f"format {version[0]}.{version[1]}")
        shape, column_major, dtype = np.lib.format.read_array_header_1_0(header)
        if dtype.hasobject:
            raise DataError(f"{where}: numbers or text", got="Python objects (a pickle, which could run code)")
        declared, held = math.prod(shape) * dtype.itemsize, info.file_size - member.tell()
        if declared != held or min(shape, default=0) < 0:
            raise DataError(
                f"{where}: {dtype} {list(shape)} in {declared:,} bytes, as its header says",
                got=f"{held:,} bytes",
                do="save or download it again",
            )
        content = np.empty(held, np.uint8)
        for start in range(0, held, sip):
            wanted = content[start : start + sip]
            if cast(Any, member).readinto(wanted.data) < len(wanted):
                raise EOFError(f"{where} ends before its {held:,} bytes")
    return np.ndarray(shape, dtype, content.data, order="F" if column_major else "C")


def class_names(path: Path, values: NDArray[Any], key: str = "classes") -> list[str]:
    """Names by index from an array of text or numbers [C].

    Raises:
        DataError: another dtype or shape, or fewer than two names.
    """
    if values.ndim != 1 or values.dtype.kind not in "USiu" or len(values) < 2:
        raise DataError(f"{path}: {key}, a list of at least two names", got=f"{values.dtype} {list(values.shape)}")
    return [name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in values.tolist()]
