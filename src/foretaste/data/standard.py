"""The standard data sets, from the files that torchvision lays out under one folder."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foretaste.data.arrays import Part, assemble
from foretaste.data.base import Dataset
from foretaste.data.folders import read_images, read_part, require_classes, subfolders
from foretaste.errors import DataError

DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class Files:
    """How torchvision reads one data set.

    Attributes:
        reader: name of the class in `torchvision.datasets`.
        train: argument that picks its training part.
        test: argument that picks its test part.
        place: what must lie under the data folder.
        classes: names, where torchvision has none.
    """

    reader: str
    train: dict[str, Any]
    test: dict[str, Any]
    place: str
    classes: tuple[str, ...] = DIGITS


_FLAG: tuple[dict[str, Any], dict[str, Any]] = ({"train": True}, {"train": False})
_SPLIT: tuple[dict[str, Any], dict[str, Any]] = ({"split": "train"}, {"split": "test"})

# CIFAR's files are pickles, which could run code. torchvision unpickles a file only if its MD5 is the published one, so
# only the authors' own bytes are ever unpickled (making another file with a given MD5 is still out of reach). Nothing
# here can switch that check off.
FILES: dict[str, Files] = {
    "cifar10": Files("CIFAR10", *_FLAG, "cifar-10-batches-py"),
    "cifar100": Files("CIFAR100", *_FLAG, "cifar-100-python"),
    "stl10": Files("STL10", *_SPLIT, "stl10_binary"),
    "svhn": Files("SVHN", *_SPLIT, "train_32x32.mat"),
    "mnist": Files("MNIST", *_FLAG, "MNIST/raw"),
    "usps": Files("USPS", *_FLAG, "usps.bz2"),
    "gtsrb": Files("GTSRB", *_SPLIT, "gtsrb"),
}

GTSRB_SIZE = 32
"""Traffic signs are 15 to 250 pixels wide, and not square; the literature resizes them to this side."""


def load_standard(name: str, data_dir: Path | None, *, download: bool = False) -> Dataset:
    """A standard data set with its own test part (PACS: without one).

    Args:
        name: a name of `SOURCES` other than `digits`.
        data_dir: the folder that torchvision calls `root`.
        download: fetch what is missing; nothing is fetched otherwise.

    Raises:
        DataError: no folder given, files missing or damaged, or the download failed.
    """
    if data_dir is None:
        raise DataError(f"data {name}: the folder that holds its files", got="none", do="pass --data-dir DIR")
    if name == "pacs":
        return _pacs(data_dir / "pacs", download=download)
    files = FILES[name]
    parts = [_torchvision(name, files, data_dir, part, download=download) for part in (files.train, files.test)]
    if name == "gtsrb":
        return _gtsrb(data_dir / files.place)
    where = str(data_dir / files.place)
    train, test = (Part(where, np.asarray(part.data), _labels(part)) for part in parts)
    return assemble(name, train, test, classes=getattr(parts[0], "classes", files.classes))


def _torchvision(name: str, files: Files, data_dir: Path, part: dict[str, Any], *, download: bool) -> Any:
    from torchvision import datasets
    from torchvision.datasets.utils import check_integrity

    reader = getattr(datasets, files.reader)
    place = data_dir / files.place
    try:
        if name == "usps" and not download:  # torchvision checks these files when it downloads them, not when it reads
            _, file, md5 = reader.split_list["train" if part["train"] else "test"]
            if not check_integrity(data_dir / file, md5):
                raise RuntimeError(f"{file} is missing, or its checksum is not the published one")
        return reader(data_dir, **part, download=download)
    # torchvision has no error of its own; damaged files also end in AssertionError, TypeError, ...
    except Exception as error:
        there = f"{type(error).__name__}: {error}" if download or place.exists() else "nothing there"
        raise DataError(
            f"{place}: the files of {name} as torchvision lays them out (files with the published checksums)",
            got=there.replace(" You can use download=True to download it", ""),
            do="check the network" if download else "correct --data-dir, or pass --download",
        ) from error


def _labels(dataset: Any) -> np.ndarray[Any, Any]:
    return np.asarray(dataset.targets if hasattr(dataset, "targets") else dataset.labels)


def _gtsrb(folder: Path) -> Dataset:
    training, images, table = (
        folder / "GTSRB/Training",
        folder / "GTSRB/Final_Test/Images",
        folder / "GT-final_test.csv",
    )
    classes = subfolders(training)
    try:
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter=";", skipinitialspace=True))
        paths = [images / Path(row["Filename"]).name for row in rows]
        names = [f"{int(row['ClassId']):05d}" for row in rows]
        labels = np.array([classes.index(name) for name in names])
        if not rows:
            raise ValueError("no row")
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(
            f"{table}: columns Filename and ClassId for the test images, with the classes of {training}",
            got=f"{type(error).__name__}: {error}",
            do="download it again",
        ) from error
    test = Part(str(table), read_images(paths, GTSRB_SIZE), labels)
    return assemble("gtsrb", read_part([training], classes, GTSRB_SIZE), test, classes=classes)


def _pacs(folder: Path, *, download: bool) -> Dataset:
    if not folder.is_dir():
        do = "get it from its authors" + (" (there is no download of it)" if download else " or correct --data-dir")
        raise DataError(f"{folder}: PACS as <domain>/<class>/*.jpg", got="no such folder", do=do)
    domains = [folder / domain for domain in subfolders(folder)]
    classes = subfolders(domains[0])
    for domain in domains[1:]:
        require_classes(domain, classes, domains[0])
    return assemble("pacs", read_part(domains, classes), classes=classes)
