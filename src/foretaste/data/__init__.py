"""Data sets as values. Importing this package imports neither torch nor numpy; `load` and `split` do."""

from __future__ import annotations

from pathlib import Path

from foretaste.data.base import Dataset
from foretaste.data.domains import file_of, load_domains
from foretaste.data.sources import SOURCES
from foretaste.data.split import Split, SplitSpec, split, whole
from foretaste.errors import DataError, SpecError

__all__ = ["SOURCES", "Dataset", "Split", "SplitSpec", "file_of", "load", "split", "whole"]


def load(source: str, *, data_dir: Path | None = None, download: bool = False) -> Dataset:
    """Read a data set whole: uint8 pixels [N, 3, H, W] and int64 labels [N].

    Args:
        source: a name of `SOURCES`, else the path of an .npz file (see `npz.load_npz`), else of a folder of images
            (see `folders.load_folder`). A name wins over a folder of that name in the working folder: write `./name`.
            `FILE.npz@photo` and `FILE.npz@photo:sketch` choose rows by domain (see `domains.load_domains`).
        data_dir: where the files of a standard data set lie, as torchvision lays them out.
        download: let torchvision fetch what is missing into `data_dir`; nothing else here uses the network.

    Raises:
        SpecError: the source is none of the three.
        DataError: the data are missing, damaged or of another form.
    """
    try:
        return _load(source, data_dir, download=download)
    except OSError as error:  # e.g. no permission; what a file contains is checked where it is read
        raise DataError(f"data {source}: files that can be read", got=str(error), do="check the path") from error


def _load(source: str, data_dir: Path | None, *, download: bool) -> Dataset:
    path, domains = file_of(source)
    if source == "digits":
        from foretaste.data.digits import load_digits

        return load_digits()
    if source in SOURCES:
        from foretaste.data.standard import load_standard

        return load_standard(source, data_dir, download=download)
    if domains is not None:
        return load_domains(path, domains)
    if path.suffix.lower() == ".npz":
        from foretaste.data.npz import load_npz

        return load_npz(path)
    if source and path.is_dir():
        from foretaste.data.folders import load_folder

        return load_folder(path)
    raise SpecError(
        f"data: one of {', '.join(SOURCES)}, the path of an .npz file, or of a folder of images",
        got=f"{source!r}" + (" (a file of another kind)" if path.is_file() else " (no such folder)"),
        do="correct the name or the path",
    )
