"""`FILE.npz@A:B` against rows picked by hand: which rows, which names, which digests, and every wrong request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foretaste.audits.prepare import prepare
from foretaste.data import load
from foretaste.errors import DataError, SpecError
from tests.audits.audit_fixture import command, image_audit, make_world

DOMAINS = ["photo", "art:work", "<b>"]
COUNTS = {"train": 24, "test": 12}


def arrays(**changes: Any) -> dict[str, Any]:
    random = np.random.default_rng(0)
    found: dict[str, Any] = {"domains": DOMAINS, "classes": ["cat", "dog"]}
    for part, rows in COUNTS.items():
        found[f"x_{part}"] = random.integers(0, 256, (rows, 5, 4, 3), dtype=np.uint8)
        found[f"y_{part}"] = np.arange(rows) % 2
        found[f"domain_{part}"] = random.permutation(np.arange(rows) % 3).astype(np.uint8)
    return {key: value for key, value in (found | changes).items() if value is not None}


def saved(folder: Path, name: str = "data.npz", **changes: Any) -> Path:
    np.savez(folder / name, **arrays(**changes))
    return folder / name


def by_hand(part: str, domain: int) -> tuple[Any, Any]:
    """Pixels [k, 3, H, W] and labels [k] of one domain, row by row."""
    source = arrays()
    rows = [row for row in range(COUNTS[part]) if source[f"domain_{part}"][row] == domain]
    assert rows
    return source[f"x_{part}"][rows].transpose(0, 3, 1, 2), source[f"y_{part}"][rows]


@pytest.mark.parametrize(
    ("wanted", "train", "test"),
    [("photo", 0, 0), ("art:work", 1, 1), ("<b>", 2, 2), ("photo:<b>", 0, 2), ("art:work:photo", 1, 0)],
)
def test_rows_are_those_of_the_domain(wanted: str, train: int, test: int, tmp_path: Path) -> None:
    path = saved(tmp_path)
    dataset = load(f"{path}@{wanted}")
    whole = load(str(path))
    for part, domain in (("train", train), ("test", test)):
        images = getattr(dataset, part)
        pixels, labels = by_hand(part, domain)
        np.testing.assert_array_equal(images.pixels.numpy(), pixels)
        np.testing.assert_array_equal(images.labels.numpy(), labels)
        assert images.classes == ("cat", "dog")
        assert images.name == f"data.npz@{wanted}"
        rows = torch.from_numpy((arrays()[f"domain_{part}"] == domain).nonzero()[0])
        assert images.digest == getattr(whole, part).take(rows).digest != getattr(whole, part).digest


@pytest.mark.parametrize("name", ["me@home.npz", "a.npz@b.npz"])
def test_a_file_whose_name_has_the_sign_is_that_file(name: str, tmp_path: Path) -> None:
    path = saved(tmp_path, name)
    assert len(load(str(path)).train) == COUNTS["train"]
    assert len(load(f"{path}@photo").train) == COUNTS["train"] // 3


def test_a_folder_whose_name_looks_like_a_domain_is_that_folder(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "data.npz@photo").mkdir()
    with pytest.raises(DataError, match="empty folder"):
        load(str(tmp_path / "data.npz@photo"))


@pytest.mark.parametrize(
    "wanted", ["", "Photo", "photo:", ":photo", "photo:clipart", "sketch", "art", "photo:art:work:x"]
)
def test_an_unknown_domain_lists_what_there_is(wanted: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"domains among photo, art:work, <b>; got") as caught:
        load(f"{saved(tmp_path)}@{wanted}")
    assert repr(wanted) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"domains": None}, "got no domains"),
        ({"domain_test": None}, "got no domain_test"),
        ({"domains": None, "domain_train": None, "domain_test": None}, "no domains and no domain_train and no domain"),
        ({"x_test": None, "y_test": None}, "got no x_test"),
        ({"domain_train": np.zeros(5, int)}, "each of the 24 rows of x_train; got 5 labels"),
        ({"domain_train": np.zeros(24)}, "domain_train: integer labels; got float64"),
        ({"domain_test": np.full(12, 3)}, r"domain_test in \[0, 2\]; got 3"),
        ({"domain_train": np.full(24, -1)}, "got label -1"),
        ({"domain_test": np.ones(12, int)}, "rows of domain photo in domain_test; got none"),
        ({"domains": np.zeros((3, 1))}, "domains, a list of at least two names"),
        ({"domains": np.array(DOMAINS, object)}, "pickle"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_without_usable_domains(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load(f"{saved(tmp_path, **changes)}@photo")


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.npz: an \.npz file; got nothing there"):
        load(f"{tmp_path / 'none.npz'}@photo")
    with pytest.raises(SpecError, match="no such folder"):
        load(f"{tmp_path / 'none'}@photo")


def test_an_audit_of_one_domain_tested_on_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = make_world(tmp_path)
    found = dict(np.load(world / "images.npz"))
    index = {f"domain_{part}": np.arange(len(found[f"y_{part}"])) // 3 % 2 for part in ("train", "test")}
    np.savez(world / "two.npz", **found, **index, domains=["even", "odd"])
    prepared = prepare(image_audit(world, data=f"{world / 'two.npz'}@even:odd", attacks=["label-flip"]))
    rows = {name: getattr(prepared.setting.images, name) for name in ("train", "validation", "clean", "test")}
    even, odd = (
        {image.transpose(2, 0, 1).tobytes() for image in found[f"x_{part}"][index[f"domain_{part}"] == domain]}
        for part, domain in (("train", 0), ("test", 1))
    )
    assert sum(map(len, rows.values())) == len(even) + len(odd) == 90
    for name, images in rows.items():
        assert {image.numpy().tobytes() for image in images.pixels} <= (odd if name == "test" else even)
    assert prepared.setting.data_entry().name == "two.npz@even:odd"
    monkeypatch.chdir(world)
    flags = ["--encoder", "net.py:make", "--out", "out"]
    assert command("audit", "--data", "two.npz@photo", *flags) == 2
    assert "domains among even, odd; got 'photo'" in capsys.readouterr().err
    poison = ["--encoder", "net.py:make", "--budget", "0.1"]
    assert command("attack", "label-flip", "--data", "two.npz@even", *poison, "--out", "two.npz") == 2
    assert "got the input itself" in capsys.readouterr().err


@pytest.mark.shared
def test_pacs_has_the_rows_of_its_domains(shared: Path) -> None:
    path = shared / "data" / "pacs_32.npz"
    with np.load(path) as file:
        given = {key: file[key] for key in ("domains", "domain_train", "domain_test", "x_test", "y_train")}
    names = list(given["domains"])
    assert names == ["photo", "art_painting", "cartoon", "sketch"]
    for number, name in enumerate(names):
        dataset = load(f"{path}@{name}")
        assert len(dataset.train) == (given["domain_train"] == number).sum()
        assert dataset.train.labels.tolist() == given["y_train"][given["domain_train"] == number].tolist()
    moved = load(f"{path}@photo:sketch")
    assert len(moved.train) == 1337
    pixels = given["x_test"][given["domain_test"] == 3].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(moved.test.pixels.numpy(), pixels)
