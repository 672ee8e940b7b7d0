from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

import foretaste as ft
from foretaste.probes.knn import KNNProbe
from tests.api.fixture import parts, rows, sklearn_predictions, victim


def test_accuracy_is_that_of_scikit_learn_with_wilsons_interval() -> None:
    one = victim()
    X, y = rows(120)
    Xt, yt = parts()["test"]
    predicted = sklearn_predictions([(X, y)], Xt)
    assert_array_equal(one.predictions["exact"], predicted)
    p, n, z = float((predicted == yt).mean()), 90, 1.959963984540054
    centre, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert 0.6 < p < 1 and one.accuracy.value == pytest.approx(p) and one.accuracy.n == n
    assert one.accuracy.low == pytest.approx((centre - half) / (1 + z**2 / n))
    assert one.accuracy.high == pytest.approx((centre + half) / (1 + z**2 / n))
    assert_array_equal(one.truth, yt)


@pytest.mark.parametrize(
    "convert",
    [
        lambda array: torch.from_numpy(array),
        lambda array: (
            torch.from_numpy(array).requires_grad_() if array.dtype == np.float32 else torch.from_numpy(array)
        ),
        lambda array: array.astype(np.float64) if array.dtype == np.float32 else array.astype(np.uint8),
        lambda array: np.asfortranarray(array),
        lambda array: array.tolist(),
    ],
    ids=["torch", "torch with gradients", "other widths", "columns first", "lists"],
)
def test_arrays_of_every_kind_give_the_same_bytes(convert: Callable[[Any], Any]) -> None:
    others = {name: (convert(X), convert(y)) for name, (X, y) in parts().items()}
    made = ft.Victim.from_features(*map(convert, rows(120)), **others)
    assert made.setting.inputs() == victim().setting.inputs()
    assert_array_equal(made.predictions["exact"], victim().predictions["exact"])


def test_bfloat16_and_halves_are_read() -> None:
    X, y = rows(120)
    for dtype in (torch.bfloat16, torch.float16):
        z = torch.from_numpy(X).to(dtype)
        made = ft.Victim.from_features(z, y, **parts())
        assert torch.equal(made.train.z, z.float())


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_arrays_are_copied(convert: Callable[[Any], Any]) -> None:
    X, y = map(convert, rows(120))
    others = {name: tuple(map(convert, part)) for name, part in parts().items()}
    made = ft.Victim.from_features(X, y, **others)
    before, digests = made.train.z.clone(), made.setting.inputs()
    for one, labels in ((X, y), *others.values()):
        one[:] = 7.0
        labels[:] = 0
    assert torch.equal(made.train.z, before) and made.setting.inputs() == digests == victim().setting.inputs()
    assert torch.equal(made.setting.test.z, victim().setting.test.z)


def test_parts_that_are_not_given_are_split_off_by_class() -> None:
    X, y = rows(300)
    made = ft.Victim.from_features(X, y)
    sizes = {name: len(part) for name, part in made.setting.parts.items()}
    assert sizes == {"train": 120, "validation": 96, "clean": 24, "test": 60}
    every = np.concatenate([part.z.numpy() for part in made.setting.parts.values()])
    assert {row.tobytes() for row in every} == {row.tobytes() for row in X}, "each row once"
    assert torch.bincount(made.setting.test.y).tolist() == [20, 20, 20]


def test_names_of_classes_and_what_a_victim_says_of_itself() -> None:
    made = victim(classes=["a", "b", "c"], probes=["exact", "knn"])
    assert made.setting.train.classes == ("a", "b", "c")
    assert list(made.predictions) == ["exact", "knn"]
    assert repr(made) == "Victim('features', 120 training rows, 90 test rows, 3 classes)"
    assert not made.attacked


@pytest.mark.parametrize("probes", ["knn", ["knn"], (KNNProbe,), [KNNProbe()], KNNProbe], ids=str)
def test_a_probe_by_name_class_or_value(probes: Any) -> None:
    assert_array_equal(victim(probes=probes).predictions["knn"], victim(probes=["knn"]).predictions["knn"])
    assert victim(probes=[KNNProbe(k=3)]).setting.probes["knn"] == KNNProbe(k=3)


X, Y = rows(30)


@pytest.mark.parametrize(
    ("arguments", "settings", "error", "message"),
    [
        (
            (X[:, 0], Y),
            {},
            ft.DataError,
            r"rows: X float \[n, d\], d >= 1; got float32 \[30\]; pass X\.reshape\(len\(X\), -1\)",
        ),
        ((X[None], Y), {}, ft.DataError, r"got float32 \[1, 30, 6\]"),
        (
            ([[1.0, 2.0], [3.0]], [0, 1]),
            {},
            ft.DataError,
            r"training rows: X: an array of numbers; got .*; give all rows one",
        ),
        (
            ((X * 10).astype(int), Y),
            {},
            ft.DataError,
            r"got int64 \[30, 6\]; convert it with X\.astype\(numpy\.float32\)",
        ),
        (("F.npz", Y), {}, ft.DataError, r"X float \[n, d\]"),
        ((None, Y), {}, ft.DataError, r"X float \[n, d\], d >= 1; got object"),
        (
            (np.where(X > 1, np.nan, X), Y),
            {},
            ft.DataError,
            "finite features within float32; got NaN or infinity in row",
        ),
        ((X.astype(np.float64) * 1e300, Y), {}, ft.DataError, "finite features within float32"),
        ((X, Y.astype(float)), {}, ft.DataError, "rows: y: integer labels; got float64 from 0 to 2"),
        ((X, np.array(["a", "b"])[Y % 2]), {}, ft.DataError, "y: integer labels; got <U1"),
        ((X, Y[:, None]), {}, ft.DataError, r"one label per row, \[30\]; got shape \[30, 1\]; save y\.reshape\(-1\)"),
        ((X, Y[:7]), {}, ft.DataError, "one label for each of the 30 rows of X; got 7 labels"),
        ((X, Y - 1), {}, ft.DataError, r"y in \[0, 65535\]; got label -1 in row 0"),
        ((X, Y * 0), {}, ft.DataError, r"y of at least two classes; got one class only"),
        ((X * 0, Y), {}, ft.DataError, "features that differ between rows"),
        ((X[:1], Y[:1]), {}, ft.DataError, "at least two rows; got 1 rows"),
        ((X, Y), {"classes": ["a", "b"]}, ft.DataError, r"y in \[0, 1\]; got label 2 in row 2"),
        ((X, Y), {"classes": 3}, ft.DataError, "classes, a list of 2 to 65536 names"),
        ((X, Y), {"test": X}, ft.DataError, r"test: a pair of features and labels; got a ndarray; pass test=\(X, y\)"),
        ((X, Y), {"clean": (X, Y, Y)}, ft.DataError, "clean: a pair of features and labels; got 3 of them"),
        (
            (X, Y),
            {"validation": (X[:, :2], Y)},
            ft.DataError,
            r"validation: features \[n, 6\], as in features; got \[n, 2\]",
        ),
        ((X, Y), {"test": (X, Y + 1)}, ft.DataError, r"test: y in \[0, 2\]; got label 3 in row 2"),
        ((X[:3], Y[:3]), {}, ft.DataError, "a test row, a share of 0.2; got 3 rows"),
        ((X, Y), {"probes": ["kn"]}, ft.SpecError, "got 'kn'; did you mean knn?"),
        ((X, Y), {"probes": []}, ft.SpecError, "probes: at least one"),
        ((X, Y), {"probes": [int]}, ft.SpecError, "probe builtins:int: a class that extends Probe or ImageProbe"),
        ((X, Y), {"probes": ["exact", "fine-tune"]}, ft.SpecError, "probes on features, .* got fine-tune"),
        ((X, Y), {"ridge": "a"}, ft.SpecError, "got ridge = 'a'"),
        ((X, Y), {"ridge": 0}, ft.SpecError, "got ridge = 0"),
    ],
)
def test_wrong_rows_are_told_in_one_line(
    arguments: tuple[Any, Any], settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        ft.Victim.from_features(*arguments, **settings)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": X}, "data: a name, an .npz file or a folder; got a ndarray; save arrays with numpy.savez"),
        ({"encoder": torch.nn.Linear(1, 1)}, "encoder: a name, a file or keys of an EncoderSpec; got a Linear"),
        ({"encoder": {"referenc": "x"}}, "encoder.referenc"),
        ({"budgets": [0.1]}, "settings among split, probes, .*; got budgets"),
        ({"split": {"train": 2}}, "split.train = 2"),
        ({"precision": "double"}, "precision = 'double'"),
        ({"encoder": "digits-simcl"}, "did you mean digits-simclr"),
    ],
)
def test_wrong_data_and_encoders_are_told_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ft.ForetasteError, match=message) as raised:
        ft.Victim.from_data(**settings)
    assert "\n" not in str(raised.value)


def test_a_victim_on_features_has_no_encoder() -> None:
    for use in (lambda: victim().used_encoder, lambda: victim().predict(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))):
        with pytest.raises(ft.SpecError, match=r"a victim with an encoder; got one on features; use Victim\.from"):
            use()


def test_images_from_numpy_are_those_from_torch() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 5), dtype=np.uint8)
    labels = np.array([0, 1, 1, 0], dtype=np.int32)
    made = ft.Images(pixels, labels, ["a", "b"], "x")  # type: ignore[arg-type]
    same = ft.Images(torch.from_numpy(pixels), torch.from_numpy(labels).long(), ("a", "b"), "x")
    assert made.digest == same.digest
    before = made.pixels.clone()
    pixels[:] = 0
    assert torch.equal(made.pixels, before) and before.any(), "copied"
    with pytest.raises(ft.DataError, match=r"x: pixels uint8 \[N, 3, H, W\]; got torch.float64"):
        ft.Images(pixels.astype(float), labels, ("a", "b"), "x")  # type: ignore[arg-type]
