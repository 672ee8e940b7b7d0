"""The split: victim's training rows, attacker's validation rows, defender's clean rows, referee's test rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from foretaste.data.base import Dataset
from foretaste.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from foretaste.images import Images


class SplitSpec(BaseModel):
    """Who gets which rows. `train`, `validation` and `clean` are shares of the rows that are not test rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: float = Field(default=0.5, gt=0, le=1, description="share of the victim's training rows")
    validation: float = Field(default=0.4, ge=0, lt=1, description="share of the attacker's own rows")
    clean: float = Field(default=0.1, ge=0, lt=1, description="share of the defender's clean rows")
    test: float = Field(default=0.2, gt=0, lt=1, description="share of test rows, where the source has no test part")
    seed: int = Field(default=0, ge=0, description="seed of the split")
    limit: int | None = Field(default=None, ge=1, description="at most so many test rows, and so many others")

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        total = self.train + self.validation + self.clean
        if total > 1 + 1e-9:
            raise ValueError(f"train + validation + clean must not exceed 1, got {total:g}")
        return self


@dataclass(frozen=True, eq=False)
class Split:
    """Four disjoint parts with the same classes, each in the source's own order.

    Attributes:
        train: what the victim fits the head on.
        validation: the attacker's own rows.
        clean: the defender's own rows.
        test: the referee's; no attack and no defence receives them.
    """

    train: Images
    validation: Images
    clean: Images
    test: Images


def split(dataset: Dataset, spec: SplitSpec) -> Split:
    """Divide a data set, stratified by class: of n rows of a class a part with share s gets s * n, to within one row.

    Every class is in the victim's training rows: one that is too small for its share gives up one row of another part.
    The same data and spec give the same rows.

    Raises:
        DataError: a class has no row for the victim, or a part with a positive share no row at all.
    """
    rest, test = whole(dataset, spec)
    rows = _parts(rest.labels, rest.classes, spec, rest.name)
    return Split(**{name: rest.take(chosen) for name, chosen in rows.items()}, test=test)


def divide(labels: Tensor, classes: tuple[str, ...], spec: SplitSpec, name: str, *, test: bool) -> dict[str, Tensor]:
    """The rows of each part by labels alone, for rows that are not images: the rule of `split`.

    Args:
        labels: int64 [n].
        classes: their names.
        spec: shares and seed; `limit` does not apply.
        name: of the data, for messages.
        test: set test rows aside.

    Returns:
        Rows int64, ascending, of train, validation, clean and, if asked for, test.

    Raises:
        DataError: as `split`.
    """
    import torch

    everything = torch.arange(len(labels))
    if not test:
        return _parts(labels, classes, spec, name)
    chosen = torch.from_numpy(_held_out(labels, len(classes), spec))
    if not bool(chosen.any()):
        raise _too_few(name, f"a test row, a share of {spec.test:g}", f"{len(labels)} rows")
    rest = everything[~chosen]
    parts = _parts(labels[rest], classes, spec, name)
    return {**{part: rest[rows] for part, rows in parts.items()}, "test": everything[chosen]}


def stratified(labels: Tensor, classes: int, share: float, seed: int, stream: str) -> tuple[Tensor, Tensor]:
    """Rows in two parts: a share of every class, to within one row and one row at least, and the others.

    Args:
        labels: int64 [n].
        classes: C.
        share: in (0, 1].
        seed: of the named stream.
        stream: its name.

    Returns:
        Rows int64, ascending: those of the share, and the others.
    """
    import torch

    chosen = torch.from_numpy(_spread(labels, classes, seed, stream) < share)
    return chosen.nonzero()[:, 0], (~chosen).nonzero()[:, 0]


def _parts(labels: Tensor, classes: tuple[str, ...], spec: SplitSpec, name: str) -> dict[str, Tensor]:
    """Rows of train, validation and clean among rows that are not test rows."""
    import torch

    keys = torch.from_numpy(_spread(labels, len(classes), spec.seed, "split/parts"))
    parts, start = {}, 0.0
    for part in ("train", "validation", "clean"):
        share = getattr(spec, part)
        parts[part] = ((keys >= start) & (keys < start + share)).nonzero()[:, 0]
        start += share
        if share > 0 and not len(parts[part]):
            raise _too_few(name, f"a row for the part `{part}`, a share of {share:g}", f"{len(labels)} rows")
    present = set(labels[parts["train"]].tolist())
    if lacking := [one for label, one in enumerate(classes) if label not in present]:
        found = f"no row of {', '.join(lacking[:5])}{', ...' if len(lacking) > 5 else ''} in {len(labels)} rows"
        raise _too_few(name, f"a training row of each of the {len(classes)} classes", found)
    return parts


def whole(dataset: Dataset, spec: SplitSpec) -> tuple[Images, Images]:
    """All rows that are not test rows, and the test rows: the same ones as those of `split`.

    A source's own test part is used as it is; where there is none, a share `spec.test` of each class is set aside.

    Raises:
        DataError: there is no row to set aside.
    """
    rest, test = dataset.train, dataset.test
    if test is None:
        chosen = _held_out(rest.labels, len(rest.classes), spec)
        rest, test = _take(dataset.train, ~chosen), _take(dataset.train, chosen)
        if not len(test):
            raise _too_few(rest.name, f"a test row, a share of {spec.test:g}", f"{len(dataset.train)} rows")
    return _thin(rest, spec, "train"), _thin(test, spec, "test")


def _held_out(labels: Tensor, classes: int, spec: SplitSpec) -> NDArray[Any]:
    # From the upper end: a class of one row keeps it for training.
    return _spread(labels, classes, spec.seed, "split/test") >= 1 - spec.test


def _spread(labels: Tensor, classes: int, seed: int, stream: str) -> NDArray[Any]:
    """A key in [0, 1) for each row [N]: the rows of every class, shuffled, are evenly spaced from a random start.

    The rows with keys in an interval of length s are thus a share s of every class, to within one row (systematic
    sampling). The first row of each class has the key 0, so that each interval from 0 on holds every class.
    """
    import numpy as np

    from foretaste.runtime import generator

    draws = generator(seed, stream)
    array = labels.numpy()
    keys = np.empty(len(array))
    for label in range(classes):
        rows = draws.permutation(np.flatnonzero(array == label))
        keys[rows] = (np.arange(len(rows)) + draws.random()) / max(len(rows), 1)
        keys[rows[:1]] = 0
    return keys


def _thin(images: Images, spec: SplitSpec, part: str) -> Images:
    """The `spec.limit` rows with the smallest keys: each class keeps its share, and one row at least if that can be."""
    import numpy as np

    if spec.limit is None or len(images) <= spec.limit:
        return images
    chosen = np.argsort(_spread(images.labels, len(images.classes), spec.seed, f"split/limit/{part}"), kind="stable")[
        : spec.limit
    ]
    return _take(images, np.isin(np.arange(len(images)), chosen))


def _take(images: Images, chosen: NDArray[Any]) -> Images:
    import torch

    return images.take(torch.from_numpy(chosen.nonzero()[0]))


def _too_few(name: str, expected: str, got: str) -> DataError:
    return DataError(f"{name}: {expected}", got=got, do="pass more rows, or other shares (or a higher limit)")
