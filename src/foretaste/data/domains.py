"""Rows of one domain of an .npz file: `FILE.npz@photo`, or `FILE.npz@photo:sketch` to test on another domain."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretaste.data.base import Dataset
from foretaste.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from foretaste.images import Images


def file_of(source: str) -> tuple[Path, str | None]:
    """A source as the path of its file or folder, and the domains that it asks for.

    A path that exists is meant as it is, whatever its name: `@` asks for a domain only where no such file lies.

    >>> file_of("pacs.npz@photo:sketch")
    (PosixPath('pacs.npz'), 'photo:sketch')
    >>> file_of("me@home/pacs.npz")
    (PosixPath('me@home/pacs.npz'), None)
    """
    path = Path(source).expanduser()
    found = re.fullmatch(r"(.*\.npz)@(.*)", source, re.IGNORECASE | re.DOTALL)
    if found is None or path.exists():
        return path, None
    return Path(found[1]).expanduser(), found[2]


def load_domains(path: Path, wanted: str) -> Dataset:
    """The rows of one domain, or the training part of one and the test part of another.

    Args:
        path: a file as `npz.load_npz` reads it, with a test part and with `domains` (names [D]), `domain_train` and
            `domain_test` (index of each row's domain, integers [N]).
        wanted: `photo`, or `photo:sketch`: other rows than test rows from photo, test rows from sketch.

    Raises:
        DataError: see `npz.load_npz`; no such keys (or not in the form above), no such domain, or no row of it.
    """
    from foretaste.data.npz import class_names, keys, load_npz, read_arrays

    needed = ["domains", "domain_train", "domain_test"]
    there = keys(path)
    if missing := [key for key in [*needed, "x_train", "x_test"] if key not in there]:
        raise DataError(
            f"{path}@{wanted}: a file with domains (keys x_train, y_train, x_test, y_test, {', '.join(needed)})",
            got=f"no {' and no '.join(missing)}",
            do="leave out the @ and what follows, or save these keys",
        )
    arrays = read_arrays(path, needed)
    names = class_names(path, arrays["domains"], "domains")
    first, second = _chosen(path, wanted, names)
    dataset = load_npz(path)
    assert dataset.test is not None
    parts = [
        _rows(path, images, arrays[key], key, names, domain, f"{path.name}@{wanted}")
        for images, key, domain in ((dataset.train, "domain_train", first), (dataset.test, "domain_test", second))
    ]
    return Dataset(*parts)


def _chosen(path: Path, wanted: str, names: list[str]) -> tuple[str, str]:
    """Domains of the training and of the test rows; a name may itself hold a colon."""
    pairs = [(wanted, wanted)] if wanted in names else []
    for place in (place for place, letter in enumerate(wanted) if letter == ":"):
        pairs.append((wanted[:place], wanted[place + 1 :]))
    for pair in pairs:
        if set(pair) <= set(names):
            return pair
    raise DataError(
        f"{path}@DOMAIN or {path}@DOMAIN:TEST-DOMAIN: domains among {', '.join(names)}",
        got=repr(wanted),
        do="correct the name",
    )


def _rows(
    path: Path, images: Images, index: NDArray[Any], key: str, names: list[str], domain: str, name: str
) -> Images:
    from foretaste.data.arrays import Part, to_labels
    from foretaste.images import Images

    where = to_labels(Part(str(path), index, index, key.replace("domain", "x"), key), len(images))
    if int(where.max()) >= len(names):
        raise DataError(f"{path}: {key} in [0, {len(names) - 1}]", got=f"{int(where.max())}", do="name every domain")
    rows = (where == names.index(domain)).nonzero()[:, 0]
    if not len(rows):
        raise DataError(f"{path}: rows of domain {domain} in {key}", got="none", do=f"pass one of {', '.join(names)}")
    return Images(images.pixels[rows].contiguous(), images.labels[rows].contiguous(), images.classes, name)
