"""TGDA's amortised leader: one network makes all poison images from their base images (Lu, Kamath, Yu, TMLR 2022)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import interpolate
from torch.nn.utils import parameters_to_vector, skip_init

from foretaste.attacks.optimise.carriers import PixelCarrier

WIDTHS = (3, 12, 24, 48)
STRIDE = 2 ** (len(WIDTHS) - 1)


class Autoencoder(nn.Module):
    """The paper's convolutional network: 3-12-24-48 channels, kernel 4, stride 2, and its mirror image.

    Float [m, 3, H, W] in [0, 1] to float [m, 3, H, W] in (0, 1): tanh, as in the paper's network for MNIST; its CIFAR
    network has no last nonlinearity and leaves the range of images. Sides that 8 does not divide are resized inside.
    """

    def __init__(self, random: torch.Generator) -> None:
        super().__init__()
        down = [skip_init(nn.Conv2d, a, b, 4, 2, 1) for a, b in pairwise(WIDTHS)]
        up = [skip_init(nn.ConvTranspose2d, b, a, 4, 2, 1) for a, b in pairwise(WIDTHS)][::-1]
        layers: list[nn.Module] = []
        for layer in (*down, *up):
            layers += [layer, nn.ReLU()]
        self.body = nn.Sequential(*layers[:-1], nn.Tanh())
        with torch.no_grad():
            for weight in self.parameters():  # as torch does by default, but from a named stream
                fan = weight[0].numel() if weight.ndim > 1 else WIDTHS[-1] * 16
                weight.copy_((2 * torch.rand(weight.shape, generator=random) - 1) / fan**0.5)

    def forward(self, images: Tensor) -> Tensor:
        """Poison images of base images."""
        height, width = images.shape[2:]
        inside = (-(-height // STRIDE) * STRIDE, -(-width // STRIDE) * STRIDE)
        x = 2 * images - 1
        out: Tensor = self.body(x if inside == (height, width) else interpolate(x, inside, mode="bilinear"))
        out = out if inside == (height, width) else interpolate(out, (height, width), mode="bilinear")
        return (out + 1) / 2


class GeneratorCarrier:
    """The leaf is the generator's parameters; images come of it, and features come of those.

    With an L-inf ball round the base image, the network's output is the position inside the ball.

    Args:
        pixels: carrier of the base images with their bounds; it does the passes through the encoder.
        random: of the first parameters.
    """

    def __init__(self, pixels: PixelCarrier, random: torch.Generator) -> None:
        self.pixels, self.network = pixels, Autoencoder(random)
        self.base = pixels.leaf.clone()
        self._names = [name for name, _ in self.network.named_parameters()]
        self._shapes = [weight.shape for weight in self.network.parameters()]
        self.leaf = parameters_to_vector(self.network.parameters()).detach()

    @property
    def passes(self) -> int:
        """Images sent through the encoder."""
        return self.pixels.passes

    def images(self, parameters: Tensor) -> Tensor:
        """Poison images float32 [m, 3, H, W] of a parameter vector; differentiable."""
        pieces = parameters.split([shape.numel() for shape in self._shapes])
        weights = {n: p.view(s) for n, p, s in zip(self._names, pieces, self._shapes, strict=True)}
        place: Tensor = functional_call(self.network, weights, (self.base,))
        images: Tensor = self.pixels.low + (self.pixels.high - self.pixels.low) * place
        return images

    def features(self) -> Tensor:
        """Features of the generated images in standard units, float32 [m, d]."""
        self.pixels.leaf = self.images(self.leaf).detach()
        return self.pixels.features()

    def pull(self, gradient: Tensor) -> None:
        """Through the encoder to the images, and through the generator to its parameters."""
        self.pixels.pull(gradient)
        with torch.enable_grad():
            parameters = self.leaf.clone().requires_grad_(True)
            (self.leaf.grad,) = torch.autograd.grad(self.images(parameters), parameters, self.pixels.leaf.grad)

    def project(self, y: Tensor) -> None:
        """The network's output is inside its bounds already."""

    def deliver(self, y: Tensor) -> Tensor:
        """The poison images, uint8 [m, 3, H, W]."""
        self.pixels.leaf = self.images(self.leaf)
        self.pixels.project(y)
        return self.pixels.deliver(y)
