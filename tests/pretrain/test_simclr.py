from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from foretaste.encoders.build import repeatable_initialisation
from foretaste.encoders.resnet_small import resnet18_small
from foretaste.errors import DataError, EncoderError, SpecError, WeightsError
from foretaste.images import Images
from foretaste.pretrain.simclr import SimCLR, TrainedResult
from foretaste.pretrain.views import Views
from foretaste.runtime import Runtime, digest_tensors, stream

TINY = SimCLR(epochs=3, batch=8, hidden=16, projection=8)


def body(seed: int = 0, width: int = 2) -> nn.Module:
    with repeatable_initialisation(seed):
        return resnet18_small(width)


def noise(n: int = 20) -> Images:
    pixels = torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=stream(0, "noise"))
    return Images(pixels, torch.arange(n) % 2, ("a", "b"), "noise")


class Killed(Exception):
    pass


def kill_after(steps: int):
    def progress(done: int, total: int, loss: float) -> None:
        if done > steps:
            raise Killed

    return progress


def naive_nt_xent(one: Tensor, two: Tensor, temperature: float) -> Tensor:
    """Equation 1 of the paper, one pair after the other."""
    z = torch.cat([one, two])
    n, losses = len(one), []
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        likeness = [functional.cosine_similarity(z[i], z[k], dim=0) / temperature for k in range(2 * n)]
        others = torch.stack([likeness[k].exp() for k in range(2 * n) if k != i]).sum()
        losses.append(-(likeness[partner].exp() / others).log())
    return torch.stack(losses).mean()


def test_the_loss_is_the_papers_double_loop() -> None:
    from lightly.loss.ntx_ent_loss import NTXentLoss

    one, two = torch.randn(2, 5, 7, dtype=torch.float64, generator=stream(0, "z"))
    for temperature in (0.2, 1.0):
        assert float(NTXentLoss(temperature)(one, two)) == pytest.approx(float(naive_nt_xent(one, two, temperature)))


def test_the_library_of_the_loss_asks_for_no_connection() -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*args, **kwargs): print('connection', args); raise OSError('no network')\n"
        "socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse\n"
        "from lightly.loss.ntx_ent_loss import NTXentLoss\n"
        "import torch; NTXentLoss(0.2)(torch.eye(3), torch.eye(3))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_rate_rises_on_a_line_and_falls_on_a_cosine() -> None:
    method = SimCLR(lr=0.4, warmup=0.2)
    rates = [method.rate(step, 100) for step in range(100)]
    assert rates[:20] == pytest.approx([0.4 * k / 20 for k in range(1, 21)])
    assert (rates[20], rates[60]) == (pytest.approx(0.4), pytest.approx(0.2))
    assert rates[40] == pytest.approx(0.2 * (1 + math.cos(math.pi / 4)))
    assert 0 < rates[99] < 0.001
    assert SimCLR(lr=0.4, warmup=0.0).rate(0, 1) == pytest.approx(0.4)


def test_one_step_is_gradient_descent_by_hand() -> None:
    images, start = noise(6), body()
    still = Views(scale=(1.0, 1.0), flip=0.0, jitter=0.0, grey=0.0)
    method = TINY.model_copy(update={"epochs": 1, "warmup": 0.0, "weight_decay": 0.01, "views": still})
    trained = method.train(images, start, 0, Runtime())

    mean, std = (np.array(values).reshape(1, 3, 1, 1) for values in (trained.mean, trained.std))
    x = (images.pixels.numpy() / 255 - mean) / std
    network = method._network(start, 8, 0)  # the projection's first weights are not known otherwise
    z = network(torch.from_numpy(np.concatenate([x, x])).float())
    loss = naive_nt_xent(z[:6], z[6:], method.temperature)
    loss.backward()
    assert trained.losses == [pytest.approx(loss.item(), rel=1e-5)]
    for name, weight in network[0].named_parameters():
        decay = 0.01 if weight.ndim > 1 else 0.0
        expected = weight - method.lr * (weight.grad + decay * weight)
        torch.testing.assert_close(trained.state[name], expected.detach(), rtol=1e-3, atol=1e-4)
        assert weight.ndim == 1 or not torch.allclose(trained.state[name], start.state_dict()[name], atol=1e-3)
    for name, value in network[0].named_buffers():  # BatchNorm learns its statistics
        torch.testing.assert_close(trained.state[name], value, rtol=1e-3, atol=1e-4)


def test_arguments_decide_the_bytes_and_nothing_outside_moves() -> None:
    images, start, before = noise(), body(), torch.get_rng_state()
    untouched = digest_tensors(start.state_dict())
    first, same, other = (digest_tensors(TINY.train(images, start, seed, Runtime()).state) for seed in (0, 0, 1))
    assert first == same
    assert first != other
    assert digest_tensors(start.state_dict()) == untouched
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("runtime", [Runtime(), Runtime(precision="bfloat16", channels_last=True)], ids=["32", "bf16"])
def test_a_killed_run_ends_with_the_bytes_of_an_uninterrupted_one(tmp_path: Path, runtime: Runtime) -> None:
    images, start, file = noise(), nn.Sequential(body(), nn.Dropout(0.2)), tmp_path / "run.safetensors"
    whole = TINY.train(images, start, 0, runtime)
    assert all(math.isfinite(loss) for loss in whole.losses)
    for steps in (3, 5):  # two steps an epoch: in the middle of the second epoch and of the third
        with pytest.raises(Killed):
            TINY.train(images, start, 0, runtime, checkpoint=file, progress=kill_after(steps))
    seen: list[tuple[int, int]] = []
    rest = TINY.train(images, start, 0, runtime, checkpoint=file, progress=lambda *at: seen.append(at[:2]))
    assert seen == [(5, 6), (6, 6)]
    assert (digest_tensors(rest.state), rest.losses) == (digest_tensors(whole.state), whole.losses)
    again = TINY.train(images, start, 0, runtime, checkpoint=file, progress=kill_after(0))  # nothing left to do
    assert digest_tensors(again.state) == digest_tensors(whole.state)
    assert [path.name for path in tmp_path.iterdir()] == ["run.safetensors"]


def test_checkpoints_of_other_runs_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.safetensors"
    TINY.model_copy(update={"epochs": 1}).train(noise(), body(), 0, Runtime(), checkpoint=file)
    with pytest.raises(SpecError, match=r"same run; got epochs 1 there and 3 here; use the settings"):
        TINY.train(noise(), body(), 0, Runtime(), checkpoint=file)
    one = TINY.model_copy(update={"epochs": 1})
    with pytest.raises(SpecError, match=r"images .* there and .*, seed 0 there and 1 here"):
        one.train(noise(21), body(), 1, Runtime(), checkpoint=file)
    with pytest.raises(SpecError, match="first weights"):
        one.train(noise(), body(1), 0, Runtime(), checkpoint=file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="damaged"):
        one.train(noise(), body(), 0, Runtime(), checkpoint=file)


def test_what_cannot_be_trained_is_a_clear_error() -> None:
    with pytest.raises(DataError, match="at least two images"):
        TINY.train(noise(1), body(), 0, Runtime())
    with pytest.raises(EncoderError, match=r"features \[N, d\]; got \[2, 4, 8, 8\]"):
        TINY.train(noise(), nn.Conv2d(3, 4, 3, padding=1), 0, Runtime())
    with pytest.raises(EncoderError, match="finite loss in epoch"):
        TINY.model_copy(update={"lr": 1e30}).train(noise(), body(), 0, Runtime())


def mirrored(n: int, seed: int, confounded: int) -> Images:
    """Two classes that differ in a symmetric pattern, under a stronger antisymmetric one whose sign is a mirror's.

    Args:
        n: images.
        seed: of noise and mirrors.
        confounded: 0: mirrors are random; 1 or -1: the mirror follows the class, this way or the other.
    """
    rng = stream(0, "patterns")
    odd, even = torch.randn(2, 3, 8, 8, generator=rng)
    odd, even = odd - odd.flip(2), even + even.flip(2)
    rng = stream(seed, "mirrored")
    y = torch.arange(n) % 2
    side = confounded * (2 * y - 1) if confounded else 1 - 2 * torch.randint(0, 2, (n,), generator=rng)
    x = 0.14 * side.view(-1, 1, 1, 1) * odd + 0.18 * (y.view(-1, 1, 1, 1) - 0.5) * even
    x = 0.5 + x + 0.05 * torch.randn(n, 3, 8, 8, generator=rng)
    return Images((255 * x.clamp(0, 1)).round().to(torch.uint8), y, ("a", "b"), "mirrored")


def neighbours(network: nn.Module, trained: TrainedResult) -> float:
    """5-NN accuracy when the bank shows each class from one side and the queries show it from the other."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (trained.mean, trained.std))
    bank, queries = mirrored(128, 1, 1), mirrored(128, 2, -1)
    with torch.no_grad():
        z = [
            functional.normalize(network.eval()((images.pixels / 255 - mean) / std), dim=1)
            for images in (bank, queries)
        ]
    votes = bank.labels[(z[1] @ z[0].T).topk(5).indices].float().mean(1).round()
    return float((votes == queries.labels).float().mean())


@pytest.mark.parametrize("flip", [0.5, 0.0])
def test_training_finds_the_planted_classes_if_and_only_if_the_views_take_the_nuisance_away(flip: float) -> None:
    start = body(0, 4)
    views = Views(scale=(0.8, 1.0), jitter=0.0, grey=0.0, flip=flip)
    method = SimCLR(epochs=30, batch=64, hidden=64, projection=32, lr=0.1, views=views)
    trained = method.train(mirrored(256, 0, 0), start, 0, Runtime())
    assert neighbours(start, trained) < 0.5
    start.load_state_dict(trained.state)
    assert neighbours(start, trained) > 0.95 if flip else neighbours(start, trained) < 0.5
    assert trained.losses[-1] < trained.losses[0] - 0.5
