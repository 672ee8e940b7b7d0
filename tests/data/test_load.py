"""The front door: names, paths, errors, and what importing costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from foretaste.data import SOURCES, load
from foretaste.errors import DataError, SpecError


def test_digits_are_scikit_learns() -> None:
    dataset = load("digits")
    truth = load_digits()
    assert dataset.test is None
    assert dataset.train.classes == tuple("0123456789")
    assert dataset.train.labels.tolist() == truth.target.tolist()
    assert dataset.train.pixels.shape == (1797, 3, 8, 8)
    assert int(dataset.train.pixels.max()) == 255
    for channel in range(3):
        assert np.abs(dataset.train.pixels[:, channel].numpy() / 255 * 16 - truth.images).max() <= 16 / 255 / 2


def test_importing_the_table_imports_nothing_heavy() -> None:
    heavy = "torch", "torchvision", "numpy", "sklearn", "PIL"
    code = f"import sys; import foretaste.data; print(*(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_unknown_sources_list_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,2")
    for source in ("cifar", "", "Digits", str(tmp_path / "nowhere"), str(tmp_path / "a.csv")):
        with pytest.raises(SpecError) as caught:
            load(source)
        for name in SOURCES:
            assert name in str(caught.value)
        assert repr(source) in str(caught.value)


def test_a_name_wins_over_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert len(load("digits").train) == 1797
    with pytest.raises(DataError, match="empty folder"):
        load("./digits")


def test_files_that_the_system_refuses_are_data_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    (tmp_path / "locked").mkdir()
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=r"files that can be read; got .*Permission denied"):
        load(str(tmp_path / "locked"))
