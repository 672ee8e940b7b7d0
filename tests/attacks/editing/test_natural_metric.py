"""The metric on weights against its closed form on a linear encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foretaste.attacks.editing.shadow_cache import prepare_shadow
from foretaste.encoders.base import Encoder
from foretaste.encoders.card import Card
from foretaste.runtime import Runtime, stream
from tests.attacks import attacks_fixture as toy
from tests.attacks.weights_fixture import TARGET, tinted


def test_metric_is_the_closed_form_on_a_linear_encoder() -> None:
    """Moving z_t by u at the least mean change of other rows is u x_t' C^-1 / (x_t' C^-1 x_t), C = E[x x']."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(3 * toy.SIDE**2, 6, bias=False))
    with torch.no_grad():
        body[1].weight.copy_(torch.randn(6, 3 * toy.SIDE**2, generator=stream(0, "linear")))
    encoder = Encoder(body, Card(name="linear", architecture="tests", d=6))
    images = tinted(4000, "metric")
    cache = prepare_shadow(encoder, images, Runtime(), "all", True)
    assert cache.names == ("1.weight",) and cache.metric is not None
    x = images.pixels[cache.rows].flatten(1).double() / 255
    x_t = TARGET.flatten().double() / 255
    unit = cache.scaler.scale
    u = torch.randn(6, generator=stream(0, "u"), dtype=torch.float64)

    def cost(step: Tensor) -> float:
        """Mean squared change of ordinary rows, per squared change of the target along u, in standard units."""
        along = float((step @ x_t / unit) @ u) / float(u @ u)
        return float((x @ step.T / unit).square().sum(1).mean()) / (along**2 * float(u @ u))

    gradient = (u / unit)[:, None] * x_t  # of u'(z_t in standard units)
    inverse = torch.linalg.inv(x.T @ x / len(x))
    best = (u * unit)[:, None] * (inverse @ x_t) / (x_t @ inverse @ x_t)
    steered = cache.metric.steer([gradient.float()])[0].double()
    assert cost(best) < 1.01 / float(x_t @ inverse @ x_t)
    assert cost(steered) < 3 * cost(best) < 0.2 * cost(gradient)
