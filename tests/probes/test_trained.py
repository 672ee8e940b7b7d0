"""The probes that train a network, against the same training written with torch's own modules."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from foretaste.audits.grid import configured
from foretaste.audits.prepare import prepare
from foretaste.errors import DataError, SpecError
from foretaste.features.embed import embed
from foretaste.heads.fit import fit_head
from foretaste.probes.fine_tune import FineTuneProbe
from foretaste.probes.mlp import MLPProbe, forward
from foretaste.record import unpack_labels
from foretaste.runtime import Runtime, stream
from tests.attacks import weights_fixture as scene
from tests.audits import steered_fixture as fakes
from tests.audits.audit_fixture import audit, feature_audit, image_audit
from tests.audits.steered_fixture import steer

CPU = Runtime()


@pytest.fixture(autouse=True)
def unseen(steering: None) -> None:
    fakes.CALLS.clear()


def rows(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    y = torch.arange(n) % 3
    return 3 * torch.eye(3, 5)[y] + torch.randn(n, 5, generator=stream(seed, "rows")), y


class Masked(nn.Module):
    """Dropout with given masks in the place of drawn ones."""

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask / 0.75 if self.training else x


@pytest.mark.parametrize("normalise", [True, False])
def test_the_mlp_is_the_one_of_torch(normalise: bool) -> None:
    z, y = rows(50)
    probe = MLPProbe(hidden=(16, 8), dropout=0.25, epochs=6, batch=16, learning_rate=0.01, normalise=normalise)
    draws = stream(4, "probe")
    dropout = Masked()
    linear = [nn.Linear(i, o) for i, o in pairwise((5, 16, 8, 3))]
    network = nn.Sequential(linear[0], nn.ReLU(), dropout, linear[1], nn.ReLU(), linear[2])
    for layer in linear:
        bound = layer.in_features**-0.5
        for weight in layer.parameters():
            weight.data = (2 * torch.rand(weight.shape, generator=draws) - 1) * bound
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    x = z / z.norm(dim=1, keepdim=True) if normalise else z
    for _ in range(6):
        for start in range(0, 50, 16):
            batch, wanted = x[start : start + 16], y[start : start + 16]
            dropout.mask = (torch.rand(len(batch), 16, generator=draws) >= 0.25).float()
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(batch), wanted).backward()
            optimizer.step()
    network.eval()
    fitted = probe.fit(z, y, 3, 4, CPU)
    assert fitted.figures["loss"] == pytest.approx(float(nn.functional.cross_entropy(network(x), y).detach()), rel=1e-3)
    new = rows(300, seed=1)[0]
    expected = network(new / new.norm(dim=1, keepdim=True) if normalise else new)
    assert (fitted.predict(new) == expected.argmax(1)).float().mean() > 0.99
    assert not torch.equal(probe.fit(z, y, 3, 5, CPU).predict(new), torch.zeros(300, dtype=torch.int64))


def test_the_mlp_has_the_public_codes_defaults_and_one_result_per_seed() -> None:
    fields = MLPProbe().entry()
    assert fields == {
        "name": "mlp",
        "hidden": [512, 256],
        "dropout": 0.5,
        "epochs": 500,
        "batch": 64,
        "learning_rate": 1e-4,
        "normalise": True,
    }
    z, y = rows(40)
    quick = MLPProbe(epochs=2)
    losses = [quick.fit(z, y, 3, seed, CPU).figures["loss"] for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    with pytest.raises(SpecError, match="lower learning_rate"):
        MLPProbe(epochs=30, learning_rate=1e30).fit(z, y, 3, 0, CPU)
    with pytest.raises(SpecError, match="at least one unit"):
        MLPProbe(hidden=(0, 3)).fit(z, y, 3, 0, CPU)
    layers = [(torch.eye(2), torch.zeros(2)), (-torch.eye(2), torch.ones(2)), (torch.ones(1, 2), torch.zeros(1))]
    assert forward(layers, torch.tensor([[0.5, -3.0]])).item() == 1.5


def test_fine_tuning_is_the_one_of_torch_from_the_optimal_head() -> None:
    images, encoder = scene.tinted(40, "train"), scene.encoder_of()
    before = encoder.sha256()
    probe = FineTuneProbe(epochs=3, batch=16, learning_rate=1e-3, weight_decay=0.05)
    z = embed(encoder, images.pixels, CPU)
    first = fit_head(z, images.labels, 3, 1e-3)
    mean, deviation = z.double().mean(0).float(), z.double().std(0, unbiased=False).float()
    network, head = scene.Tiny(True).eval(), nn.Linear(16, 3)
    head.weight.data, head.bias.data = first.optimum.weight[:, :-1].float(), first.optimum.weight[:, -1].float()

    def scores(pixels: Tensor) -> Tensor:
        return head((network((pixels.float() / 255 - 0.5) / 0.25) - mean) / deviation)

    optimizer = torch.optim.AdamW([*network.parameters(), *head.parameters()], lr=1e-3, weight_decay=0.05)
    draws = stream(2, "probe")
    for epoch in range(3):
        optimizer.param_groups[0]["lr"] = 5e-4 * (1 + math.cos(math.pi * epoch / 3))
        losses = []
        for chosen in torch.randperm(40, generator=draws).split(16):
            loss = nn.functional.cross_entropy(scores(images.pixels[chosen]), images.labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    fitted = probe.fit(encoder, images.pixels, images.labels, 3, 2, CPU)
    assert fitted.figures["loss"] == pytest.approx(np.mean(losses), rel=1e-3)
    new = scene.tinted(200, "new")
    agree = (fitted.predict(new.pixels) == scores(new.pixels).argmax(1)).float().mean()
    assert agree > 0.99
    assert encoder.sha256() == before and not any(weight.requires_grad for weight in encoder.parameters())
    moved = (network.net[0].weight - encoder.body.net[0].weight).norm()
    assert moved > 1e-4, "the encoder itself trains"
    with pytest.raises(DataError, match="probe: "):
        probe.fit(encoder, images.pixels, images.labels[:-1], 3, 0, CPU)
    with pytest.raises(SpecError, match="lower learning_rate"):
        FineTuneProbe(epochs=3, learning_rate=1e20).fit(encoder, images.pixels, images.labels, 3, 0, CPU)


TUNED = "fine-tune:epochs=2:learning_rate=0.001"


def test_an_audit_fine_tunes_on_clean_images_poison_and_behind_edited_encoders(lookup: Path, tmp_path: Path) -> None:
    spec = steer(lookup, "label-flip", "copies", "by-heart", probes=["exact", TUNED], targets=1, budgets=[0.3])
    clean, flipped, copied, edited = audit(spec, tmp_path).records
    prepared = prepare(spec)
    probe, images, truth = prepared.setting.probes["fine-tune"], prepared.setting.images, prepared.setting.test.y
    own = probe.fit(prepared.setting.encoder, images.train.pixels, images.train.labels, 3, 0, CPU).predict(
        images.test.pixels
    )
    np.testing.assert_array_equal(unpack_labels(clean.predictions["fine-tune"]), own)
    assert clean.scores["fine-tune"].clean.value == pytest.approx(float((own == truth).float().mean()))
    # Copies of one image under the wanted label, trained on as images.
    row, wanted = copied.target.index, copied.target.target_class
    pixels = torch.cat([images.train.pixels, images.test.pixels[row].expand(18, -1, -1, -1)])
    labels = torch.cat([images.train.labels, torch.full((18,), wanted)])
    now = probe.fit(prepared.setting.encoder, pixels, labels, 3, 0, CPU).predict(images.test.pixels)
    np.testing.assert_array_equal(unpack_labels(copied.predictions["fine-tune"]), now)
    assert copied.target.probes["fine-tune"].success and copied.target.probes["fine-tune"].augmented is not None
    assert flipped.scores["fine-tune"].poisoned.value <= flipped.scores["fine-tune"].clean.value
    assert edited.status == "ok" and "fine-tune" in edited.target.probes


def test_a_probe_on_images_is_refused_where_there_are_none(world: Path) -> None:
    with pytest.raises(SpecError, match="probes on features"):
        configured(feature_audit(world, probes=["exact", "fine-tune"]))
    with pytest.raises(SpecError, match=r"the headline; got fine-tune, which trains on images; put exact first"):
        configured(image_audit(world, attacks=["label-flip"], probes=["fine-tune", "exact"]))
    with pytest.raises(SpecError, match="attacks that deliver images, since fine-tune trains on them"):
        configured(image_audit(world, attacks=["exact"], probes=["exact", "fine-tune"]))
    assert configured(image_audit(world, attacks=["exact:carrier=pixels"], probes=["exact", "fine-tune"]))
