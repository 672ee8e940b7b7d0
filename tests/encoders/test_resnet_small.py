from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from foretaste.encoders.build import repeatable_initialisation
from foretaste.encoders.resnet_small import resnet18_small
from foretaste.encoders.weights import read_state_dict
from foretaste.errors import EncoderError


@pytest.mark.parametrize("side", [8, 15, 32])
@pytest.mark.parametrize("training", [False, True])
def test_same_weights_give_the_features_of_torchvisions_resnet18_with_a_small_stem(side: int, training: bool) -> None:
    from torchvision.models import resnet18

    with repeatable_initialisation(0):
        theirs = resnet18()
        theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.maxpool = theirs.fc = nn.Identity()
    for module in theirs.modules():  # statistics that are not those of a fresh network
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1, generator=torch.Generator())
    ours = resnet18_small(64)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(ours.train(training)(images), theirs.train(training)(images), rtol=1e-5, atol=1e-5)


def test_width_sets_the_features_and_the_sizes_that_matter_work() -> None:
    network = resnet18_small(4).eval()
    for side in (8, 32, 224):
        with torch.no_grad():
            assert network(torch.zeros(1, 3, side, side)).shape == (1, 32)
    with pytest.raises(EncoderError, match="at least 1 channel; got 0"):
        resnet18_small(0)


@pytest.mark.shared
def test_the_published_simclr_encoder_loads_strictly_and_knows_its_neighbours(shared: Path) -> None:
    network = resnet18_small(16)
    tensors = read_state_dict(shared / "encoders" / "simclr_resnet18_w16_cifar10.safetensors").tensors
    network.load_state_dict(tensors, strict=True)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)))
    with np.load(shared / "data" / "cifar10_jpeg_10k2k.npz") as file:
        bank, queries = (torch.from_numpy(file[key][:rows]) for key, rows in (("x_train", 2000), ("x_test", 500)))
        y, truth = (torch.from_numpy(file[key][:rows]).long() for key, rows in (("y_train", 2000), ("y_test", 500)))
    features = []
    with torch.no_grad():
        for images in (bank, queries):
            batches = (images.permute(0, 3, 1, 2) / 255 - mean).div(std).split(500)
            features.append(functional.normalize(torch.cat([network.eval()(batch) for batch in batches])))
    nearest = (features[1] @ features[0].T).topk(20).indices
    votes = functional.one_hot(y[nearest], 10).sum(1).argmax(1)
    # 56.9 % with a bank of 10,000; a fifth of the bank costs a few points. Random weights give about 25 %.
    assert float((votes == truth).float().mean()) > 0.46
