from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from foretaste.encoders import ARCHITECTURES, build
from foretaste.encoders.base import Encoder
from foretaste.encoders.build import repeatable_initialisation
from foretaste.encoders.card import Card
from foretaste.encoders.resnet_small import resnet18_small
from foretaste.encoders.spec import EncoderSpec
from foretaste.encoders.weights import read_state_dict, save_encoder
from foretaste.errors import EncoderError, WeightsError
from foretaste.runtime import digest_tensors, stream

IMAGES = torch.rand((4, 3, 32, 32), generator=stream(0, "images"))
TIMM = "timm:test_resnet"

USER_FILE = """
from torch import nn
from sibling import activation

def small():
    pool = nn.AdaptiveAvgPool2d(2)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), activation(), pool, nn.Flatten())

class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.ModuleDict({"net": small()})
        self.register_buffer("mean", 0.5 * __import__("torch").ones(1, 3, 1, 1))

    def forward(self, images):
        return self.body["net"](images - self.mean)

constant = 3
def returns_a_number(): return 3
def raises(): raise RuntimeError("no such file: weights.bin")
def needs(argument): return small()
"""


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "sibling.py").write_text("from torch.nn import ReLU as activation\n")
    (folder / "networks.py").write_text(USER_FILE)
    sys.modules.pop("sibling", None)
    return folder / "networks.py"


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the package's folder of weights, with an encoder of another mean and size than the default."""
    path = tmp_path / "assets" / "digits-simclr.safetensors"
    with repeatable_initialisation(3):
        state = resnet18_small(8).state_dict()
    facts = {"mean": (0.3, 0.3, 0.3), "std": (0.2, 0.2, 0.2), "input_size": 16, "source": "planted", "licence": "mine"}
    card = Card(name="digits-simclr", architecture="resnet18-small", d=64, options={"width": 8}, **facts)
    save_encoder(path, state, card)
    monkeypatch.setattr(build.resources, "files", lambda _: tmp_path)
    return path


def features(encoder: Encoder, images: Tensor = IMAGES) -> Tensor:
    with torch.no_grad():
        return encoder(images)


def edit(encoder: Encoder) -> dict[str, Tensor]:
    """What a weight attack does: every floating tensor moves a little, in place."""
    draw = stream(1, "edit")
    for value in encoder.body.state_dict().values():
        if value.is_floating_point():
            value.mul_(1 + 0.1 * torch.rand(value.shape, generator=draw))
    return encoder.body.state_dict()


def test_resnet18_small_is_the_network_after_its_normalisation() -> None:
    encoder = build.build(EncoderSpec(reference="resnet18-small", width=8))
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
    body = resnet18_small(8).eval()
    body.load_state_dict(encoder.body.state_dict())
    with torch.no_grad():
        by_hand = body((IMAGES - mean[:, None, None]) / std[:, None, None])
    assert torch.allclose(features(encoder), by_hand, atol=1e-6)
    assert (encoder.card.d, encoder.card.input_size, encoder.card.options) == (64, 32, {"width": 8})
    assert encoder.card.source == "random weights, seed 0"
    assert encoder.card.sha256 == digest_tensors(body.state_dict())
    assert features(encoder, torch.rand(1, 3, 50, 40)).shape == (1, 64), "resized inside"


def test_random_weights_repeat_and_leave_the_global_stream_alone() -> None:
    before = torch.get_rng_state()
    first = build.build(EncoderSpec(reference="resnet18-small", width=4))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert build.build(EncoderSpec(reference="resnet18-small", width=4)).card == first.card


def test_width_comes_from_the_weights_and_flags_win_over_defaults(tmp_path: Path) -> None:
    with repeatable_initialisation(5):
        state = resnet18_small(4).state_dict()
    torch.save({"state_dict": {f"module.encoder_q.{key}": value for key, value in state.items()}}, tmp_path / "w.pth")
    spec = EncoderSpec(
        reference="resnet18-small", weights=tmp_path / "w.pth", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), input_size=16
    )
    encoder = build.build(spec)
    body = resnet18_small(4).eval()
    body.load_state_dict(state)
    with torch.no_grad():
        by_hand = body(functional.interpolate(IMAGES, size=(16, 16), mode="bilinear", align_corners=False))
    assert torch.equal(features(encoder), by_hand)
    assert encoder.card.name == "resnet18-small (w)"
    assert encoder.card.source == "weights of w.pth"
    with pytest.raises(WeightsError, match=r"w\.pth: tensors with the network's shapes.*conv1\.weight"):
        build.build(spec.model_copy(update={"width": 8}))


@pytest.mark.parametrize("reference", [TIMM, "timm:mobilenetv3_small_050"])
def test_timm_features_are_those_of_timm(reference: str) -> None:
    import timm

    encoder = build.build(EncoderSpec(reference=reference))
    theirs = timm.create_model(reference[5:], pretrained=False, num_classes=0).eval()
    theirs.load_state_dict(encoder.body.state_dict())
    side = theirs.default_cfg["input_size"][1]
    mean, std = (torch.tensor(theirs.default_cfg[key])[:, None, None] for key in ("mean", "std"))
    resized = functional.interpolate(IMAGES, size=(side, side), mode="bilinear", align_corners=False)
    with torch.no_grad():
        by_hand = theirs((resized - mean) / std)
    assert torch.equal(features(encoder), by_hand)
    assert encoder.card.d == by_hand.shape[1]
    assert encoder.card.source == "random weights, seed 0"


def test_timm_weights_with_a_classifier_load_without_it(tmp_path: Path) -> None:
    import timm

    with repeatable_initialisation(9):
        whole = timm.create_model("test_resnet", pretrained=False, num_classes=10).eval()
    torch.save(whole.state_dict(), tmp_path / "whole.pt")
    encoder = build.build(EncoderSpec(reference=TIMM, weights=tmp_path / "whole.pt"))
    assert set(encoder.card.dropped_keys) == {"fc.weight", "fc.bias"}
    resized = functional.interpolate(IMAGES, size=(160, 160), mode="bilinear", align_corners=False)
    with torch.no_grad():
        logits = whole((resized - 0.5) / 0.5)
        assert torch.allclose(whole.fc(features(encoder)), logits, atol=1e-5)


def test_unknown_timm_names_get_close_matches_and_no_network() -> None:
    with pytest.raises(EncoderError, match=r"no model of that name; did you mean .*\bresnet18\b"):
        build.build(EncoderSpec(reference="timm:resnet_18"))
    with pytest.raises(EncoderError, match="no model of that name"):
        build.build(EncoderSpec(reference="timm:hf-hub:timm/resnet18.a1_in1k"))
    with pytest.raises(EncoderError, match="a model that timm can build"):
        build.build(EncoderSpec(reference="timm:resnet18.no_such_tag"))


@pytest.mark.parametrize("kind", ["resnet18-small", "digits-simclr", TIMM, "file", "class", "flags"])
def test_an_edited_encoder_comes_back_bit_for_bit(kind: str, user_file: Path, packaged: Path, tmp_path: Path) -> None:
    reference = {"file": f"{user_file}:small", "class": f"{user_file}:Wrapped", "flags": "resnet18-small"}.get(
        kind, kind
    )
    spec = EncoderSpec(reference=reference, width=4 if reference == "resnet18-small" else None)
    if kind == "flags":
        spec = spec.model_copy(update={"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7), "input_size": 24})
    encoder = build.build(spec)
    clean = features(encoder)
    state = edit(encoder)
    edited = features(encoder)
    assert not torch.equal(clean, edited)
    path = tmp_path / "poisoned.safetensors"
    save_encoder(path, state, encoder.card)

    replaced = build.build(EncoderSpec(reference=reference, weights=path))
    assert torch.equal(features(replaced), edited)
    assert replaced.card.sha256 == digest_tensors(state) == encoder.sha256() != encoder.card.sha256
    assert replaced.card.dropped_keys == ()
    assert build.build(EncoderSpec(reference=reference, width=spec.width)).card.sha256 != replaced.card.sha256
    if kind in ("file", "class"):
        with pytest.raises(EncoderError, match=r"may name.*would run code; .*--encoder YOUR_MODULE:CALLABLE --weights"):
            build.build(EncoderSpec(reference=str(path)))
    else:
        alone = build.build(EncoderSpec(reference=str(path)))
        assert torch.equal(features(alone), edited)
        assert alone.card == replaced.card


def test_digits_simclr_is_what_its_card_says(packaged: Path) -> None:
    encoder = build.build(EncoderSpec(reference="digits-simclr"))
    card = encoder.card
    assert (card.name, card.architecture, card.source, card.licence) == (
        "digits-simclr",
        "resnet18-small",
        "planted",
        "mine",
    )
    assert (card.d, card.input_size, card.mean, card.options) == (64, 16, (0.3, 0.3, 0.3), {"width": 8})


def test_the_embedded_encoder_tells_digits_apart() -> None:
    from sklearn.datasets import load_digits

    encoder = build.build(EncoderSpec(reference="digits-simclr"), sample=(8, 8))
    path = Path(build.__file__).parent / "assets" / "digits-simclr.safetensors"
    stored = read_state_dict(path)
    assert path.stat().st_size < 1_000_000
    assert stored.card is not None
    assert stored.card == encoder.card, "its file, the sha256 included, says what it is"
    digits = load_digits()
    images = torch.from_numpy(digits.images / 16).float()[:, None].expand(-1, 3, -1, -1)
    z, y = features(encoder, images), torch.from_numpy(digits.target).long()
    assert knn_accuracy(z[:1400], y[:1400], z[1400:], y[1400:]) > 0.9


def test_facts_of_a_card_go_with_its_own_weights_only(packaged: Path, tmp_path: Path) -> None:
    with repeatable_initialisation(4):
        torch.save(resnet18_small(8).state_dict(), tmp_path / "mine.pt")
    card = build.build(EncoderSpec(reference="digits-simclr", weights=tmp_path / "mine.pt")).card
    assert (card.source, card.licence) == ("weights of mine.pt", "")
    assert card.input_size == 16, "the preprocessing stays that of the reference"


def test_a_file_cannot_make_code_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trap.py").write_text("open('executed', 'w')\ndef make(): pass\n")
    monkeypatch.chdir(tmp_path)
    state = resnet18_small(4).state_dict()
    for architecture in ("trap.py:make", "trap:make", "os:abort", "file.safetensors", "digits-simclr:x"):
        path = tmp_path / "trap.safetensors"
        save_encoder(path, state, Card(name="x", architecture=architecture, d=32), overwrite=True)
        with pytest.raises(EncoderError, match="would run code"):
            build.build(EncoderSpec(reference=str(path)))
    assert not (tmp_path / "executed").exists()


def test_cards_with_impossible_numbers(tmp_path: Path) -> None:
    state = resnet18_small(4).state_dict()
    path = tmp_path / "x.safetensors"
    for wrong, message in (
        ({"input_size": 10**6}, "--input-size: from 1 to 4096"),
        ({"mean": (0.0, 0.0, 0.0), "std": (1.0, 0.0, 1.0)}, "std above 0"),
        ({"mean": (0.0, 0.0, 0.0)}, "both or neither"),
    ):
        save_encoder(path, state, Card(name="x", architecture="resnet18-small", d=32, **wrong), overwrite=True)
        with pytest.raises(EncoderError, match=message):
            build.build(EncoderSpec(reference=str(path)))
    save_file(state, path)
    with pytest.raises(EncoderError, match="weights alone; name the architecture: --encoder resnet18-small --weights"):
        build.build(EncoderSpec(reference=str(path)))


def test_user_file_and_package(user_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path_before, modules_before = list(sys.path), set(sys.modules)
    encoder = build.build(EncoderSpec(reference=f"{user_file}:small"))
    assert sys.path == path_before
    assert "networks" not in set(sys.modules) - modules_before
    with torch.no_grad():
        assert torch.equal(features(encoder), encoder.body(IMAGES)), "no normalisation and no resizing of ours"
    assert (encoder.card.name, encoder.card.d) == ("small", 20)
    assert (encoder.card.mean, encoder.card.input_size) == (None, None)

    package = tmp_path / "their_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text(USER_FILE.replace("from sibling", "from torch.nn import ReLU as activation #"))
    monkeypatch.chdir(tmp_path)
    same = build.build(EncoderSpec(reference="their_package.nets:small"))
    assert torch.equal(features(same), features(encoder)), "first weights repeat for user code too"
    assert sys.path == path_before


def test_user_code_that_fails(user_file: Path) -> None:
    broken = user_file.with_name("broken.py")
    broken.write_text("import no_such_module\n")
    leaves = user_file.with_name("leaves.py")
    leaves.write_text("raise SystemExit(0)\n")
    for reference, message in {
        f"{user_file.with_name('absent.py')}:small": "a Python file; got no file at",
        f"{user_file}:absent": "'absent' to be a callable of .*; got no such name",
        f"{user_file}:constant": "got a int",
        f"{user_file}:returns_a_number": r"to return an nn\.Module; got a int",
        f"{user_file}:raises": "RuntimeError: no such file: weights.bin",
        f"{user_file}:needs": "TypeError: .*argument.*; it is called without arguments",
        f"{broken}:small": "can be imported; got ModuleNotFoundError: No module named 'no_such_module'",
        f"{leaves}:small": "SystemExit",
        "no_such_package.nets:small": "ModuleNotFoundError",
        ":small": "code that can be imported",
        str(user_file): "name the callable too",
    }.items():
        with pytest.raises(EncoderError, match=message):
            build.build(EncoderSpec(reference=reference))


def test_other_references_and_flags() -> None:
    with pytest.raises(EncoderError, match=r"got 'resnet18_small'; did you mean resnet18-small\?"):
        build.build(EncoderSpec(reference="resnet18_small"))
    with pytest.raises(EncoderError, match=r"name the architecture, and pass --weights mine\.pth"):
        build.build(EncoderSpec(reference="mine.pth"))
    with pytest.raises(EncoderError, match="--width: only with resnet18-small"):
        build.build(EncoderSpec(reference=TIMM, width=8))
    with pytest.raises(EncoderError, match="--width: from 1 to 512; got 0"):
        build.build(EncoderSpec(reference="resnet18-small", width=0))
    assert all(isinstance(line, str) and line for line in ARCHITECTURES.values())


def test_the_table_and_the_spec_need_no_torch() -> None:
    code = "import sys, foretaste.encoders, foretaste.encoders.spec; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def knn_accuracy(bank: Tensor, bank_y: Tensor, z: Tensor, y: Tensor) -> float:
    """Cosine, 20 neighbours, one vote each."""
    near = (functional.normalize(z) @ functional.normalize(bank).T).topk(20).indices
    return (functional.one_hot(bank_y[near], 10).sum(1).argmax(1) == y).float().mean().item()


@pytest.mark.shared
def test_shared_simclr_encoder(shared: Path) -> None:
    encoder = build.build(
        EncoderSpec(reference="resnet18-small", weights=shared / "encoders" / "simclr_resnet18_w16_cifar10.safetensors")
    )
    assert (encoder.card.options, encoder.card.d, encoder.card.dropped_keys) == ({"width": 16}, 128, ())
    with np.load(shared / "data" / "cifar10_jpeg_10k2k.npz") as data:
        rows = {
            key: torch.from_numpy(data[key][: 1500 if "train" in key else 300])
            for key in data
            if key[:2] in ("x_", "y_")
        }
    bank, test = (
        torch.cat([features(encoder, part.permute(0, 3, 1, 2) / 255) for part in rows[key].split(300)])
        for key in ("x_train", "x_test")
    )
    # measured 0.54; without normalisation 0.48, at 16 pixels 0.39, with random weights 0.21
    assert knn_accuracy(bank, rows["y_train"].long(), test, rows["y_test"].long()) > 0.51


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "d"), [("protoclr", 1024), ("random_conv4", 1024), ("mobilenet", 512), ("resnet20", 64)]
)
def test_shared_user_networks(name: str, d: int, shared: Path, tmp_path: Path) -> None:
    reference = f"{shared / 'encoders' / 'networks.py'}:{name}"
    encoder = build.build(EncoderSpec(reference=reference))
    assert encoder.card.d == d
    state = edit(encoder)
    save_encoder(tmp_path / "poisoned.safetensors", state, encoder.card)
    loaded = build.build(EncoderSpec(reference=reference, weights=tmp_path / "poisoned.safetensors"))
    assert torch.equal(features(loaded), features(encoder))
