from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from foretaste.encoders.build import repeatable_initialisation
from foretaste.encoders.card import Card
from foretaste.encoders.keys import fit_keys
from foretaste.encoders.resnet_small import resnet18_small
from foretaste.encoders.weights import read_state_dict, save_encoder
from foretaste.errors import WeightsError
from foretaste.runtime import digest_tensors, stream

State = dict[str, Tensor]
CARD = Card(name="planted", architecture="resnet18-small", options={"width": 4}, d=32)


def planted(seed: int) -> State:
    """A small network whose every tensor, running statistics included, is its own."""
    with repeatable_initialisation(seed):
        state = resnet18_small(4).state_dict()
    draw = stream(seed, "planted")
    for key, value in state.items():
        if key.endswith(("running_mean", "running_var", "bias")):
            state[key] = torch.rand(value.shape, generator=draw) + 0.5
    return state


STATE, OTHER = planted(0), planted(1)


def behind(prefix: str, state: State = STATE) -> State:
    return {prefix + key: value for key, value in state.items()}


CLASSIFIER = {"fc.weight": torch.ones(10, 32), "fc.bias": torch.ones(10)}
PROJECTOR = {"projector.0.weight": torch.ones(8, 32), "projector.2.weight": torch.ones(8, 8)}

WRAPPED: dict[str, Callable[[], object]] = {
    "bare": lambda: STATE,
    "data parallel": lambda: {"epoch": 3, "state_dict": behind("module.")},
    "solo-learn": lambda: {
        "pytorch-lightning_version": "2.1",
        "global_step": 7,
        "optimizer_states": [{"state": {0: torch.ones(2)}}],
        "state_dict": {**behind("backbone."), **behind("momentum_backbone.", OTHER), **PROJECTOR},
    },
    "moco v1": lambda: {
        "state_dict": {
            **behind("module.encoder_k.", OTHER),
            **behind("module.encoder_q.", STATE | CLASSIFIER),
            "module.queue": torch.ones(4, 4),
        }
    },
    "moco v3": lambda: {"state_dict": {**behind("module.base_encoder."), **behind("module.momentum_encoder.", OTHER)}},
    "dino": lambda: {
        "teacher": behind("backbone.", OTHER),
        "student": {**behind("module.backbone."), "module.head.mlp.0.weight": torch.ones(3)},
    },
    "dino in lightning": lambda: {"state_dict": {**behind("teacher.backbone.", OTHER), **behind("student.backbone.")}},
    "byol": lambda: {"model": {**behind("target_encoder.", OTHER), **behind("encoder.")}},
    "simclr": lambda: {"net": behind("module.", STATE | CLASSIFIER)},
    "lightning, nested": lambda: {"state_dict": behind("model.backbone.")},
    "body in net": lambda: behind("net.body."),
    "compiled": lambda: behind("module._orig_mod.encoder."),
    "twice the same": lambda: {"state_dict": {**behind("backbone."), **behind("model.backbone.")}},
}


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_every_wrapper_gives_back_the_planted_network(wrapper: str, tmp_path: Path) -> None:
    torch.save(WRAPPED[wrapper](), tmp_path / "checkpoint.pth")
    file = read_state_dict(tmp_path / "checkpoint.pth")
    fitted, dropped = fit_keys(file.tensors, resnet18_small(4).state_dict())
    assert digest_tensors(fitted) == digest_tensors(STATE)
    used = [key for key in file.tensors if key not in dropped]
    assert len(used) == len(STATE), "what is not used is reported as dropped"


def test_what_is_left_out_is_reported(tmp_path: Path) -> None:
    torch.save(WRAPPED["moco v1"](), tmp_path / "moco.pth.tar")
    _, dropped = fit_keys(read_state_dict(tmp_path / "moco.pth.tar").tensors, STATE)
    assert {"module.encoder_q.fc.weight", "module.encoder_q.fc.bias", "module.queue"} < set(dropped)
    assert sum(key.startswith("module.encoder_k.") for key in dropped) == len(OTHER) == len(dropped) - 3
    torch.save(WRAPPED["solo-learn"](), tmp_path / "solo.ckpt")
    unused = read_state_dict(tmp_path / "solo.ckpt").unused
    assert unused == ("pytorch-lightning_version", "global_step", "optimizer_states")


def test_safetensors_and_half_precision_load_too(tmp_path: Path) -> None:
    half = {key: value.half() if value.is_floating_point() else value for key, value in STATE.items()}
    save_file(behind("module.", half), tmp_path / "half.safetensors")
    fitted, _ = fit_keys(read_state_dict(tmp_path / "half.safetensors").tensors, STATE)
    assert all(fitted[key].dtype == value.dtype for key, value in STATE.items())
    assert torch.equal(fitted["conv1.weight"], STATE["conv1.weight"].half().float())


def test_only_num_batches_tracked_may_be_missing() -> None:
    without = {key: value for key, value in STATE.items() if not key.endswith("num_batches_tracked")}
    fitted, dropped = fit_keys(behind("encoder.", without), STATE)
    assert list(fitted) == list(STATE)
    assert dropped == ()
    del without["layer3.1.bn2.running_var"]
    with pytest.raises(WeightsError, match=r"1 missing \(layer3\.1\.bn2\.running_var\) among"):
        fit_keys(without, STATE)


def test_many_missing_keys_are_listed_and_counted() -> None:
    few = {key: value for key, value in STATE.items() if key.startswith(("conv1", "bn1"))}
    with pytest.raises(WeightsError) as caught:
        fit_keys(few, STATE, "few.pth")
    text = str(caught.value)
    wanted = [key for key in STATE if key not in few and not key.endswith("num_batches_tracked")]
    assert f"few.pth: the {len(STATE)} keys" in text
    assert f"{len(wanted)} missing ({', '.join(wanted[:10])} and {len(wanted) - 10} more)" in text
    assert wanted[10] not in text
    assert "conv1.weight, bn1.weight" in text, "and what was found"


def test_a_teacher_alone_is_not_taken_for_the_network() -> None:
    with pytest.raises(WeightsError, match=r"missing .*teacher\.conv1\.weight"):
        fit_keys(behind("teacher."), STATE)


def test_two_different_networks_are_not_guessed_between() -> None:
    with pytest.raises(WeightsError, match=r"two that fit, under 'encoder\.' and 'student\.'"):
        fit_keys({**behind("encoder."), **behind("student.", OTHER)}, STATE)


def test_wrong_shapes_show_both_shapes() -> None:
    with pytest.raises(WeightsError, match=r"conv1\.weight float32 \[4, 3, 3, 3\] instead of float32 \[8, 3, 3, 3\]"):
        fit_keys(STATE, resnet18_small(8).state_dict())


def test_integers_are_no_weights() -> None:
    whole = {key: (value * 100).to(torch.int8) for key, value in STATE.items()}
    with pytest.raises(WeightsError, match=r"int8 .* instead of float32"):
        fit_keys(whole, STATE)


def test_a_deeper_network_is_not_cut_short() -> None:
    deeper = STATE | {f"layer2.{i}.conv1.weight": STATE["layer2.1.conv1.weight"] for i in (2, 3)}
    with pytest.raises(WeightsError, match=r"a deeper one, with layer2\.2, layer2\.3"):
        fit_keys(behind("module.", deeper), STATE)


def test_infinite_weights_are_refused_unless_the_network_has_them_itself() -> None:
    class Masked(nn.Linear):
        def __init__(self) -> None:
            super().__init__(2, 2)
            self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

    own = Masked().state_dict()
    assert torch.equal(fit_keys(own, Masked().state_dict())[0]["mask"], own["mask"])
    broken = own | {"weight": torch.tensor([[1.0, torch.inf], [0.0, 0.0]])}
    with pytest.raises(WeightsError, match="infinity in weight"):
        fit_keys(broken, Masked().state_dict())


class Trap:
    """Pickles as a call of os.system that writes a marker."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.system, (f"touch {self.marker}",)


def pickled(content: object, path: Path, protocol: int) -> None:
    import pickle  # noqa: TID251 - makes the malicious file

    path.write_bytes(pickle.dumps(content, protocol))


@pytest.mark.parametrize("way", ["zip", "legacy", "protocol 4"])
def test_a_checkpoint_with_code_runs_nothing(way: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "executed", tmp_path / "trap.pth"
    trap = {"state_dict": {"conv1.weight": torch.ones(2), "x": Trap(marker)}}
    if way == "protocol 4":
        pickled(trap["state_dict"]["x"], path, 4)
    else:
        torch.save(trap, path, _use_new_zipfile_serialization=way == "zip")
    with pytest.raises(WeightsError, match="nothing was executed"):
        read_state_dict(path)
    assert not marker.exists()


def test_the_trap_of_these_tests_would_run(tmp_path: Path) -> None:
    torch.save({"x": Trap(tmp_path / "executed")}, tmp_path / "trap.pth")
    torch.load(tmp_path / "trap.pth", weights_only=False)  # noqa: TID251 - the control
    assert (tmp_path / "executed").exists()


def test_whole_modules_and_objects_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(WeightsError, match=r"asks for torch\.nn\.modules\.linear\.Linear; nothing was executed"):
        read_state_dict(tmp_path / "module.pt")
    torch.save({"args": argparse.Namespace(lr=1), "state_dict": STATE}, tmp_path / "args.pt")
    with pytest.raises(WeightsError, match=r"argparse\.Namespace; nothing was executed; if you trust"):
        read_state_dict(tmp_path / "args.pt")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_truncated_files(suffix: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / f"cut{suffix}"
    save_file(STATE, path) if suffix == ".safetensors" else torch.save(STATE, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(WeightsError, match=r"cut.*a damaged one"):
        read_state_dict(path)


def test_other_bad_files(tmp_path: Path) -> None:
    loop: dict[str, object] = {}
    loop["model"] = loop
    cases: dict[str, tuple[object, str]] = {
        "empty": ({}, r"got nothing"),
        "list": ([torch.ones(1)], r"key -> tensor\); got list"),
        "mixed": ({"weight": torch.ones(2), "epoch": 3}, r"got epoch \(int\)"),
        "numbered": ({0: torch.ones(2)}, r"got 0 \(Tensor\)"),
        "loop": (loop, r"got model \(dict\)"),
        "sparse": ({"weight": torch.eye(3).to_sparse()}, r"got weight \(Tensor\)"),
        "swollen": ({"weight": torch.ones(1).expand(10**12)}, r"got weight \(Tensor\)"),
        "nan": ({"fine": torch.ones(2), "bn1.weight": torch.tensor([1.0, torch.nan])}, r"NaN in bn1\.weight"),
    }
    for name, (content, message) in cases.items():
        torch.save(content, tmp_path / f"{name}.pt")
        with pytest.raises(WeightsError, match=message):
            read_state_dict(tmp_path / f"{name}.pt")
    (tmp_path / "weights.onnx").write_bytes(b"onnx")
    with pytest.raises(WeightsError, match=r"suffix '\.onnx'"):
        read_state_dict(tmp_path / "weights.onnx")
    with pytest.raises(WeightsError, match="no such file"):
        read_state_dict(tmp_path / "absent.pt")
    with pytest.raises(WeightsError, match="a folder"):
        read_state_dict(tmp_path)


def test_saved_encoder_reads_back_byte_for_byte(tmp_path: Path) -> None:
    tied = torch.rand(4, 6)
    state = {
        "a": tied,
        "b": tied,
        "part": tied[:, 1:3],
        "flipped": tied.t(),
        "nhwc": torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        "half": torch.rand(3).bfloat16(),
        "count": torch.tensor(7),
        "mask": torch.tensor([True, False]),
        "none": torch.empty(0, 3),
        "negative zero": torch.tensor([-0.0]),
    }
    path = tmp_path / "new" / "encoder.safetensors"
    save_encoder(path, state, CARD)
    file = read_state_dict(path)
    assert set(file.tensors) == set(state)
    assert digest_tensors(file.tensors) == digest_tensors(state)
    assert file.card == CARD.model_copy(update={"sha256": digest_tensors(state)})
    assert (
        Card.model_validate(json.loads((tmp_path / "new" / "encoder.safetensors.card.json").read_text())) == file.card
    )
    assert sorted(entry.name for entry in path.parent.iterdir()) == [path.name, f"{path.name}.card.json"]
    assert path.stat().st_mode == (path.parent / f"{path.name}.card.json").stat().st_mode, "readable as the umask says"


def test_saving_overwrites_nothing_unasked_and_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, STATE, CARD)
    before = path.read_bytes()
    with pytest.raises(WeightsError, match="a new file; got one that exists"):
        save_encoder(path, OTHER, CARD)
    assert path.read_bytes() == before

    def full_disk(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch, pytest.raises(WeightsError, match="no space left"):
        patch.setattr(Path, "write_bytes", full_disk)
        save_encoder(path, OTHER, CARD, overwrite=True)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2
    save_encoder(path, OTHER, CARD, overwrite=True)
    assert digest_tensors(read_state_dict(path).tensors) == digest_tensors(OTHER)
    with pytest.raises(WeightsError, match=r"ends in \.safetensors; got 'encoder\.pth'"):
        save_encoder(tmp_path / "encoder.pth", STATE, CARD)


def test_a_file_cannot_bring_a_card_of_its_own_making(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "bad.safetensors", metadata={"foretaste.card": '{"name": "x", "run": "rm"}'})
    with pytest.raises(WeightsError, match="a card in the metadata"):
        read_state_dict(tmp_path / "bad.safetensors")
    save_file(STATE, tmp_path / "plain.safetensors", metadata={"format": "pt"})
    file = read_state_dict(tmp_path / "plain.safetensors")
    assert file.card is None
    assert file.metadata == {"format": "pt"}
