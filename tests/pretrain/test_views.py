from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from foretaste.errors import SpecError
from foretaste.pretrain.simclr import SimCLR
from foretaste.pretrain.views import RECIPES, Views, channel_statistics, grey, jitter, make_views, turn_hue
from foretaste.runtime import stream

NOTHING = Views(scale=(1.0, 1.0), flip=0.0, jitter=0.0, grey=0.0)


def noise(n: int = 6, height: int = 8, width: int = 8) -> Tensor:
    return torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=stream(0, "noise"))


def ramps(n: int, height: int, width: int) -> Tensor:
    """Channel 0 is the column, channel 1 the row: a bilinear crop of it tells where it was cut."""
    columns, rows = torch.arange(width).expand(height, width), torch.arange(height)[:, None].expand(height, width)
    return torch.stack([columns, rows, columns]).to(torch.uint8).expand(n, 3, height, width)


def slopes(views: Tensor, margin: int) -> tuple[Tensor, Tensor]:
    """Jacobians [N, 2, 2] and centres [N, 2] (column, row) of the crops of `ramps`, in pixels."""
    inner = 255 * views[:, :2, margin:-margin, margin:-margin].double()  # where the border was not clamped
    return (
        torch.stack([inner.diff(dim=3).mean((2, 3)), inner.diff(dim=2).mean((2, 3))], 2),
        inner.mean((2, 3)),
    )


def test_the_whole_image_without_any_change_is_the_image() -> None:
    pixels = noise(6, 8, 12)
    torch.testing.assert_close(make_views(pixels, NOTHING, stream(0, "v")), pixels / 255, rtol=0, atol=1e-6)


def test_a_larger_view_is_the_resizing_of_the_encoder() -> None:
    pixels = noise()
    expected = functional.interpolate(pixels / 255, size=(16, 16), mode="bilinear", align_corners=False)
    torch.testing.assert_close(make_views(pixels, NOTHING, stream(0, "v"), 16), expected, rtol=0, atol=1e-6)


def test_the_same_generator_state_gives_the_same_bytes_and_the_global_stream_is_left_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = (make_views(noise(), Views(), stream(seed, "v")) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(before, torch.get_rng_state())


def test_crops_lie_in_the_image_with_the_promised_areas_and_ratios_each_by_its_own_draw() -> None:
    n, side = 400, 32
    views = NOTHING.model_copy(update={"scale": (0.2, 1.0)})
    jacobians, centres = slopes(make_views(ramps(n, side, side), views, stream(0, "v")), 4)
    width, height = jacobians[:, 0, 0], jacobians[:, 1, 1]
    assert float(jacobians[:, 0, 1].abs().max()) < 1e-5
    area, ratio = width * height, width / height
    assert 0.2 <= float(area.min()) < 0.25
    assert 0.95 < float(area.max()) <= 1 + 1e-5
    assert abs(float(area.mean()) - 0.6) < 4 * 0.8 / math.sqrt(12 * n)  # uniform on [0.2, 1]
    assert 3 / 4 - 1e-4 < float(ratio.min()) < 0.8
    assert 1.25 < float(ratio.max()) < 4 / 3 + 1e-4
    slack = torch.stack([1 - width, 1 - height], 1) * side / 2 + 1e-3
    offset = centres - (side - 1) / 2
    assert bool((offset.abs() <= slack).all())
    free = slack[:, 0] > 2
    assert float((offset / slack)[free, 0].std()) == pytest.approx(1 / math.sqrt(3), abs=0.05)  # uniform places
    assert len(torch.unique((1e4 * area).round())) > 0.9 * n  # no two images share a crop


def test_rotation_turns_pixels_without_shearing_images_that_are_not_square() -> None:
    views = NOTHING.model_copy(update={"rotation": 30.0})
    jacobians, centres = slopes(make_views(ramps(200, 24, 48), views, stream(0, "v")), 10)
    torch.testing.assert_close(jacobians @ jacobians.mT, torch.eye(2).double().expand(200, 2, 2), rtol=0, atol=1e-4)
    angles = torch.rad2deg(torch.atan2(jacobians[:, 1, 0], jacobians[:, 0, 0]))
    assert 28 < float(angles.max()) <= 30.01
    assert -30.01 <= float(angles.min()) < -28
    torch.testing.assert_close(centres, torch.tensor([23.5, 11.5]).double().expand(200, 2), rtol=0, atol=1e-3)


def test_flip_mirrors_columns_and_is_its_own_inverse() -> None:
    always = NOTHING.model_copy(update={"flip": 1.0})
    once = make_views(noise(), always, stream(0, "v"))
    torch.testing.assert_close(once, noise().flip(3) / 255, rtol=0, atol=1e-6)
    twice = make_views((255 * once).round().to(torch.uint8), always, stream(1, "v"))
    torch.testing.assert_close(twice, noise() / 255, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("option", "share"), [("flip", 0.5), ("grey", 0.2), ("jitter", 0.8)])
def test_each_option_meets_its_share_of_the_images(option: str, share: float) -> None:
    n = 2000
    pixels = noise(1, 4, 4).expand(n, 3, 4, 4)
    views = make_views(pixels, NOTHING.model_copy(update={option: share}), stream(0, "v"))
    changed = ((views - pixels / 255).abs().amax((1, 2, 3)) > 1e-4).float().mean()
    assert abs(float(changed) - share) < 4 * math.sqrt(share * (1 - share) / n)


def test_jitter_is_torchvisions_applied_image_by_image() -> None:
    from torchvision.transforms.v2 import functional as theirs

    n = 5
    images = noise(n) / 255
    factors = 0.6 + 0.8 * torch.rand(3, n, generator=stream(0, "f"))
    hue = 0.2 * torch.rand(n, generator=stream(0, "h")) - 0.1
    expected = []
    for i, image in enumerate(images):
        image = theirs.adjust_brightness(image, float(factors[0, i]))
        image = theirs.adjust_contrast(image, float(factors[1, i]))
        image = theirs.adjust_saturation(image, float(factors[2, i]))
        expected.append(theirs.adjust_hue(image, float(hue[i])))
    ours = jitter(images, *factors.view(3, n, 1, 1, 1), hue.view(n, 1, 1, 1))
    # torchvision rounds the luma weight of red to four digits.
    torch.testing.assert_close(ours, torch.stack(expected), rtol=0, atol=1e-3)


def test_jitter_of_a_batch_stays_in_range_and_differs_between_images() -> None:
    pixels = noise(1).expand(50, 3, 8, 8)
    views = make_views(pixels, NOTHING.model_copy(update={"jitter": 1.0}), stream(0, "v"))
    assert 0 <= float(views.min()) <= float(views.max()) <= 1
    assert len(torch.unique((1e4 * views.mean((1, 2, 3))).round())) > 45


def test_a_full_turn_of_the_hue_changes_nothing_and_greys_have_none() -> None:
    images = noise() / 255
    turn = torch.full((6, 1, 1, 1), 0.37)
    torch.testing.assert_close(turn_hue(images, turn / turn), images, rtol=0, atol=1e-6)
    torch.testing.assert_close(turn_hue(grey(images), turn), grey(images), rtol=0, atol=1e-6)


def test_grey_views_have_three_equal_channels_of_the_right_luma() -> None:
    views = make_views(noise(), NOTHING.model_copy(update={"grey": 1.0}), stream(0, "v")).numpy()
    luma = np.tensordot(noise().numpy() / 255, [0.299, 0.587, 0.114], axes=(1, 0))
    for channel in range(3):
        np.testing.assert_allclose(views[:, channel], luma, atol=1e-6)


def test_channel_statistics_are_numpys() -> None:
    pixels = noise(50)
    mean, std = channel_statistics(pixels)
    np.testing.assert_allclose(mean, (pixels.numpy() / 255).mean((0, 2, 3)), atol=6e-5)
    np.testing.assert_allclose(std, (pixels.numpy() / 255).std((0, 2, 3)), atol=6e-5)
    assert min(channel_statistics(torch.zeros(3, 3, 4, 4, dtype=torch.uint8))[1]) > 0


def test_views_are_named_or_spelled_out_and_wrong_ones_are_errors() -> None:
    assert SimCLR.configure(views="digits").views == RECIPES["digits"]
    assert SimCLR.configure(views={"flip": 0.0}).views == Views(flip=0.0)
    assert SimCLR.configure(**{k: v for k, v in SimCLR().entry().items() if k != "name"}) == SimCLR()
    for wrong in ("sketches", {"flips": 0.5}, {"scale": (0.5, 0.2)}, {"grey": 2.0}):
        with pytest.raises(SpecError, match=r"simclr: fields .*; got views"):
            SimCLR.configure(views=wrong)
