"""Folders of images: `root/class/*.png`, or `root/train/class/*.png` and `root/test/class/*.png`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foretaste.data.arrays import Part, assemble
from foretaste.data.base import Dataset
from foretaste.data.npz import SIZE_LIMIT
from foretaste.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")
FORMATS = ("PNG", "JPEG", "PPM", "BMP", "TIFF", "WEBP")
"""What Pillow may decode, whatever the file is called: its EPS reader, for one, starts another program."""


def load_folder(root: Path, name: str | None = None) -> Dataset:
    """Labelled images from a folder; a class is a subfolder, its label the place of its name in the sorted list.

    `root/train` makes it a folder with parts; its test part is `root/test`, else `root/val`, and both must have the
    same classes. All images have one size; grey ones are copied to three channels, an alpha channel is dropped. Rows
    are ordered by class, then by file name. Files of other kinds and names that start with a dot are passed over.

    Raises:
        DataError: no class, one class only, a class without images, parts whose classes differ, an image that cannot be
            read or has another size.
    """
    train, test = root, None
    # A class may be called `train`, too: its folder holds images, not folders.
    if (root / "train").is_dir() and any(path.is_dir() for path in (root / "train").iterdir()):
        train = root / "train"
        test = next((folder for part in ("test", "val") if (folder := root / part).is_dir()), None)
    classes = subfolders(train)
    if test is not None:
        require_classes(test, classes, train)
    parts = [read_part([folder], classes) for folder in (train, test) if folder is not None]
    return assemble(name or root.resolve().name, *parts, classes=classes)


def subfolders(folder: Path) -> list[str]:
    """Names of the subfolders, sorted.

    Raises:
        DataError: there is none.
    """
    found = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not found:
        empty = "an empty folder" if not any(folder.iterdir()) else "files only"
        raise DataError(
            f"{folder}: a subfolder of images for each class", got=empty, do="put the images in ROOT/CLASS/"
        )
    return found


def require_classes(folder: Path, classes: Sequence[str], model: Path) -> None:
    """Check that a folder has the classes of another one.

    Raises:
        DataError: it has more, fewer or others.
    """
    found = set(subfolders(folder))
    if found != set(classes):
        lacks, extra = sorted(set(classes) - found), sorted(found - set(classes))
        got = [f"{word} {', '.join(names[:5])}" for word, names in (("no", lacks), ("also", extra)) if names]
        raise DataError(f"{folder}: the {len(classes)} classes of {model}", got="; ".join(got))


def read_part(folders: Sequence[Path], classes: Sequence[str], size: int | None = None) -> Part:
    """All images under `folder/class` of the given folders, which are read one after the other.

    Args:
        folders: each with a subfolder for every class.
        classes: names by label.
        size: see `read_images`.

    Raises:
        DataError: a class without images, or see `read_images`.
    """
    files, labels = [], []
    for folder in folders:
        for label, name in enumerate(classes):
            found = sorted(path for path in (folder / name).iterdir() if path.suffix.lower() in SUFFIXES)
            if not found:
                raise DataError(f"{folder / name}: images ({', '.join(SUFFIXES)})", got="none", do="remove the folder")
            files += found
            labels += [label] * len(found)
    where = ", ".join(str(folder) for folder in folders)
    return Part(where, read_images(files, size), np.array(labels))


def read_images(files: Sequence[Path], size: int | None = None) -> NDArray[np.uint8]:
    """Decode the files to uint8 [N, H, W, 3].

    Args:
        files: at least one.
        size: side in pixels to which each image is resized (Pillow's bilinear filter, which averages when it shrinks);
            default: as they are, and then all must be of one size.

    Raises:
        DataError: a file cannot be read, is not an image of 8 bits per channel, is of another size than the first, or
            all together are larger than `npz.SIZE_LIMIT`.
    """
    pixels: NDArray[np.uint8] | None = None
    with warnings.catch_warnings():
        # Pillow only warns about an image of 90 to 180 million pixels and refuses from there on.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for row, file in enumerate(files):
            shape = None if pixels is None or size is not None else (pixels.shape[1], pixels.shape[2])
            image = _decode(file, size, shape, files[0])
            if pixels is None:
                height, width, _ = image.shape
                total = len(files) * height * width * 3
                if total > SIZE_LIMIT:
                    raise DataError(
                        f"{file.parent.parent}: images of at most {SIZE_LIMIT:,} bytes in all",
                        got=f"{len(files):,} images of {height}x{width}, {total:,} bytes",
                        do="resize the images",
                    )
                pixels = np.empty((len(files), height, width, 3), np.uint8)
            pixels[row] = image
    assert pixels is not None
    return pixels


def _decode(file: Path, size: int | None, shape: tuple[int, int] | None, first: Path) -> NDArray[Any]:
    try:
        with Image.open(file, formats=FORMATS) as image:
            # The size is in the header: an image of the wrong one is refused before it is unpacked.
            if shape is not None and (image.height, image.width) != shape:
                raise DataError(
                    f"{file}: an image of {shape[0]}x{shape[1]} (height x width) like {first}",
                    got=f"{image.height}x{image.width}",
                    do="resize the images of the folder to one size",
                )
            if image.mode[0] in "IF":
                raise DataError(f"{file}: an image of 8 bits per channel", got=f"Pillow's mode {image.mode}")
            colour = image.convert("RGB")
            return np.asarray(colour if size is None else colour.resize((size, size), Image.Resampling.BILINEAR))
    except DataError:
        raise
    # Decoders of damaged bytes raise whatever they run into: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        raise DataError(
            f"{file}: an image that can be read", got=f"{type(error).__name__}: {error}", do="replace or remove it"
        ) from error
