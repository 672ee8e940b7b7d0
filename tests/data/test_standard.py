"""The standard files: small planted ones in torchvision's layout, for each data set that it names."""

from __future__ import annotations

import bz2
import hashlib
import pickle  # noqa: TID251  CIFAR's files are pickles; the tests write small ones
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision import datasets

from foretaste.data import SOURCES, load, standard
from foretaste.errors import DataError

LABELS = {"train": [3, 0, 1, 2, 3, 0, 1], "test": [1, 0, 3]}


def planted(part: str, height: int, width: int, channels: int = 3) -> np.ndarray[Any, Any]:
    """Images [N, H, W, C] in which no two places of an image agree often."""
    draws = np.random.default_rng(len(part))
    return draws.integers(0, 256, (len(LABELS[part]), height, width, channels), dtype=np.uint8)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def plant_cifar(root: Path, patch: pytest.MonkeyPatch, reader: Any, folder: str, key: str, meta: str) -> None:
    """Every training batch but the first has no rows."""
    base = root / folder
    base.mkdir(parents=True)
    for part, listed in (("train", reader.train_list), ("test", reader.test_list)):
        flat = planted(part, 32, 32).transpose(0, 3, 1, 2).reshape(-1, 3072)
        for number, (name, _) in enumerate(listed):
            rows = slice(None) if number == 0 else slice(0)
            (base / name).write_bytes(pickle.dumps({"data": flat[rows], key: LABELS[part][rows]}))
        patch.setattr(reader, f"{part}_list", [[name, md5(base / name)] for name, _ in listed])
    meta_file = base / reader.meta["filename"]
    meta_file.write_bytes(pickle.dumps({meta: ["w", "x", "y", "z"]}))
    patch.setattr(reader, "meta", {**reader.meta, "md5": md5(meta_file)})


def plant_cifar10(root: Path, patch: pytest.MonkeyPatch) -> None:
    plant_cifar(root, patch, datasets.CIFAR10, "cifar-10-batches-py", "labels", "label_names")


def plant_cifar100(root: Path, patch: pytest.MonkeyPatch) -> None:
    plant_cifar(root, patch, datasets.CIFAR100, "cifar-100-python", "fine_labels", "fine_label_names")


def plant_stl10(root: Path, patch: pytest.MonkeyPatch) -> None:
    base = root / "stl10_binary"
    base.mkdir(parents=True)
    for part in LABELS:  # the files are column-major, labels count from 1
        (base / f"{part}_X.bin").write_bytes(planted(part, 96, 96).transpose(0, 3, 2, 1).tobytes())
        (base / f"{part}_y.bin").write_bytes(bytes(label + 1 for label in LABELS[part]))
    (base / "unlabeled_X.bin").write_bytes(b"")
    for name in ("train_list", "test_list"):
        listed = getattr(datasets.STL10, name)
        patch.setattr(datasets.STL10, name, [[file, md5(base / file)] for file, _ in listed])


def plant_svhn(root: Path, patch: pytest.MonkeyPatch) -> None:
    lists = {}
    root.mkdir(parents=True, exist_ok=True)
    for part, labels in LABELS.items():
        path = root / f"{part}_32x32.mat"
        y = np.array([[label or 10] for label in labels], np.uint8)  # the file says 10 for the digit 0
        scipy.io.savemat(path, {"X": planted(part, 32, 32).transpose(1, 2, 3, 0), "y": y})
        lists[part] = ["http://none.invalid", path.name, md5(path)]
    patch.setattr(datasets.SVHN, "split_list", lists)


def plant_mnist(root: Path, patch: pytest.MonkeyPatch) -> None:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, prefix in (("train", "train"), ("test", "t10k")):
        pixels, labels = planted(part, 28, 28, 1), LABELS[part]
        sizes = b"".join(size.to_bytes(4, "big") for size in pixels.shape[:3])
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + sizes + pixels.tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(
            b"\0\0\x08\x01" + len(labels).to_bytes(4, "big") + bytes(labels)
        )


def plant_usps(root: Path, patch: pytest.MonkeyPatch) -> None:
    root.mkdir(parents=True, exist_ok=True)
    lists = {}
    for part, file in (("train", "usps.bz2"), ("test", "usps.t.bz2")):
        pixels = planted(part, 16, 16, 1).reshape(-1, 256)
        lines = [  # a value v is kept as (v + 1/2) / 255 * 2 - 1, in [-1, 1]; labels count from 1
            f"{label + 1} " + " ".join(f"{i}:{(v + 0.5) / 127.5 - 1:.6f}" for i, v in enumerate(row, 1))
            for label, row in zip(LABELS[part], pixels.tolist(), strict=True)
        ]
        (root / file).write_bytes(bz2.compress(("\n".join(lines) + "\n").encode()))
        lists[part] = ["http://none.invalid", file, md5(root / file)]
    patch.setattr(datasets.USPS, "split_list", lists)


PLANT: dict[str, tuple[Callable[[Path, pytest.MonkeyPatch], None], tuple[int, int, int], str]] = {
    "cifar10": (plant_cifar10, (32, 32, 3), "cifar-10-batches-py/data_batch_1"),
    "cifar100": (plant_cifar100, (32, 32, 3), "cifar-100-python/train"),
    "stl10": (plant_stl10, (96, 96, 3), "stl10_binary/train_X.bin"),
    "svhn": (plant_svhn, (32, 32, 3), "train_32x32.mat"),
    "mnist": (plant_mnist, (28, 28, 1), "MNIST/raw/train-images-idx3-ubyte"),
    "usps": (plant_usps, (16, 16, 1), "usps.bz2"),
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("something asked for a connection")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_every_source_is_covered() -> None:
    assert {*PLANT, "gtsrb", "pacs", "digits"} == set(SOURCES)


@pytest.mark.parametrize("name", PLANT)
def test_planted_pixels_and_labels_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    plant, shape, _ = PLANT[name]
    plant(tmp_path / "data", monkeypatch)
    dataset = load(name, data_dir=tmp_path / "data")
    assert dataset.test is not None
    for part, images in (("train", dataset.train), ("test", dataset.test)):
        assert images.name == name
        assert images.labels.tolist() == LABELS[part]
        expected = np.broadcast_to(planted(part, *shape).transpose(0, 3, 1, 2), images.pixels.shape)
        assert (images.pixels.numpy() == expected).all()
    assert len(dataset.train.classes) == (4 if name.startswith("cifar") else 10)


@pytest.mark.parametrize("name", PLANT)
def test_damaged_files_are_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    plant, _, file = PLANT[name]
    plant(tmp_path, monkeypatch)
    content = (tmp_path / file).read_bytes()
    for bad in (content[:-1], content[: len(content) // 2], b"", content[:-1] + b"?" if name != "mnist" else b"\0\0"):
        (tmp_path / file).write_bytes(bad)
        with pytest.raises(DataError, match=f"the files of {name} as torchvision lays them out") as caught:
            load(name, data_dir=tmp_path)
        assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", [*PLANT, "gtsrb"])
def test_missing_files_name_the_folder_and_the_flag(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="got none; pass --data-dir"):
        load(name)
    with pytest.raises(DataError, match="got nothing there; correct --data-dir, or pass --download") as caught:
        load(name, data_dir=tmp_path)
    assert str(tmp_path / standard.FILES[name].place) in str(caught.value)


class Runs:
    """Unpickling it runs code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was run",))


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("which", ["train", "test", "meta"])
def test_a_cifar_file_with_another_checksum_is_never_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, which: str
) -> None:
    plant, _, train_file = PLANT[name]
    plant(tmp_path, monkeypatch)
    reader = getattr(datasets, name.upper())
    folder = (tmp_path / train_file).parent
    file = reader.meta["filename"] if which == "meta" else getattr(reader, f"{which}_list")[0][0]
    (folder / file).write_bytes(pickle.dumps(Runs()))
    with pytest.raises(DataError, match="not found or corrupted"):
        load(name, data_dir=tmp_path)


def test_usps_is_checked_before_it_is_unpacked(tmp_path: Path) -> None:
    for file in ("usps.bz2", "usps.t.bz2"):
        (tmp_path / file).write_bytes(bz2.compress(bytes(10**6)))
    with pytest.raises(DataError, match="checksum is not the published one"):
        load("usps", data_dir=tmp_path)


def test_labels_outside_the_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LABELS, "train", [3, 0, 1, 2, 3, 0, 17])
    plant_mnist(tmp_path, monkeypatch)
    with pytest.raises(DataError, match=r"labels in \[0, 9\]; got label 17 in row 6"):
        load("mnist", data_dir=tmp_path)


def test_download_is_asked_for_only_when_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(url: str, root: Path, **_: Any) -> None:
        asked.append(url)
        plant_cifar10(Path(root), monkeypatch)

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fetch)
    with pytest.raises(DataError, match="--download"):
        load("cifar10", data_dir=tmp_path)
    assert not asked
    assert load("cifar10", data_dir=tmp_path, download=True).train.labels.tolist() == LABELS["train"]
    assert asked == [datasets.CIFAR10.url]


def test_a_download_that_fails_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fetch)
    with pytest.raises(DataError, match=r"got OSError: no route to host; check the network"):
        load("cifar10", data_dir=tmp_path, download=True)


def plant_gtsrb(root: Path) -> None:
    """Three classes of one colour each, in sizes that differ."""
    base = root / "gtsrb"
    for label in range(3):
        for number in range(2):
            folder = base / "GTSRB" / "Training" / f"{label:05d}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (15 + label, 40 + number), (label, 50, 200)).save(folder / f"{number}.ppm")
    images = base / "GTSRB" / "Final_Test" / "Images"
    images.mkdir(parents=True)
    rows = ["Filename;Width;ClassId"]
    for name, label in (("00001.ppm", 2), ("00000.ppm", 0)):
        Image.new("RGB", (99, 60), (label, 60, 201)).save(images / name)
        rows.append(f"{name};99;{label}")
    (base / "GT-final_test.csv").write_text("\n".join(rows))


def test_gtsrb_is_resized_and_in_the_order_of_its_table(tmp_path: Path) -> None:
    plant_gtsrb(tmp_path)
    dataset = load("gtsrb", data_dir=tmp_path)
    assert dataset.test is not None
    assert dataset.train.pixels.shape == (6, 3, 32, 32)
    assert dataset.train.classes == ("00000", "00001", "00002")
    assert dataset.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert dataset.test.labels.tolist() == [2, 0]
    for images, colour in ((dataset.train, (50, 200)), (dataset.test, (60, 201))):
        for pixels, label in zip(images.pixels, images.labels.tolist(), strict=True):
            assert [pixels[c].unique().tolist() for c in range(3)] == [[label], [colour[0]], [colour[1]]]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, "FileNotFoundError"),
        ("Filename;Width\n00000.ppm;9", "KeyError: 'ClassId'"),
        ("Filename;ClassId\n00000.ppm;x", "ValueError"),
        ("Filename;ClassId\n00000.ppm;7", "'00007' is not in list"),
        ("Filename;ClassId\n00000.ppm", "TypeError"),
        ("Filename;ClassId\n", "no row"),
    ],
)
def test_a_bad_gtsrb_table(tmp_path: Path, table: str | None, message: str) -> None:
    plant_gtsrb(tmp_path)
    path = tmp_path / "gtsrb" / "GT-final_test.csv"
    path.write_text(table) if table is not None else path.unlink()
    with pytest.raises(DataError, match=message):
        load("gtsrb", data_dir=tmp_path)


def test_gtsrb_test_image_missing(tmp_path: Path) -> None:
    plant_gtsrb(tmp_path)
    (tmp_path / "gtsrb/GTSRB/Final_Test/Images/00000.ppm").unlink()
    with pytest.raises(DataError, match=r"00000\.ppm: an image that can be read; got FileNotFoundError"):
        load("gtsrb", data_dir=tmp_path)


def test_pacs_joins_its_domains(tmp_path: Path) -> None:
    values = {"photo/dog": 7, "photo/elephant": 8, "sketch/dog": 9, "sketch/elephant": 10}
    for place, value in values.items():
        folder = tmp_path / "pacs" / place
        folder.mkdir(parents=True)
        Image.new("RGB", (4, 4), (value, 0, 0)).save(folder / "pic_001.png")
    dataset = load("pacs", data_dir=tmp_path)
    assert dataset.test is None
    assert dataset.train.classes == ("dog", "elephant")
    assert dataset.train.labels.tolist() == [0, 1, 0, 1]
    assert dataset.train.pixels[:, 0, 0, 0].tolist() == [7, 8, 9, 10]
    (tmp_path / "pacs" / "sketch" / "giraffe").mkdir()
    with pytest.raises(DataError, match=r"sketch: the 2 classes of .*photo; got also giraffe"):
        load("pacs", data_dir=tmp_path)


def test_pacs_has_no_download(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"pacs: PACS as <domain>/<class>/.*there is no download"):
        load("pacs", data_dir=tmp_path, download=True)
