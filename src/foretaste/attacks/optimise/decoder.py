"""Inversion by a decoder: a network that turns features back into images, trained on the attacker's own rows."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from foretaste.attacks.base import Progress, quiet
from foretaste.attacks.optimise.carriers import ball
from foretaste.attacks.optimise.inversion import Inversion, standard_features
from foretaste.attacks.optimise.projected_ascent import Adam
from foretaste.encoders.base import Encoder
from foretaste.encoders.build import repeatable_initialisation
from foretaste.errors import AttackError, EncoderError, SpecError
from foretaste.features.cache import FeatureCache, feature_key
from foretaste.features.decoder import Architecture, Network
from foretaste.heads.scaler import Scaler
from foretaste.images import Images
from foretaste.runtime import Runtime, stream, stream_seed

DecoderLoss = Literal["pixel", "feature"]
FEWEST = 20
"""Images below which a tenth is too little to hold out."""
BATCH = 64
KEPT = 4
"""Decoders that stay in this process."""
_trained: dict[str, Decoded] = {}


@dataclass(frozen=True, eq=False)
class Decoded:
    """A trained decoder.

    Attributes:
        network: on the runtime's device, in eval mode.
        error: RMSE of the held-out images, pixels in [0, 1].
        mean_error: the RMSE of the mean image on the same rows: a decoder no better than that has learnt nothing.
    """

    network: Network
    error: float
    mean_error: float


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """Which decoder, and how it is trained. The paper's is not described; every value here is ours.

    Lu, Yang, Kamath, Yu (SaTML 2024, arXiv 2402.12626), feature-targeted attack, stage three, in its form with a
    decoder: the image for z is dec(z).

    Attributes:
        architecture: convolutional or linear.
        loss: `pixel` is the mean square error of pixels in [0, 1]; `feature` adds weight * ||x(f(dec(z))) - x(z)||^2
            / d, through the encoder.
        weight: of that term.
        steps: of Adam, at least 1.
        rate: its first step; it falls to 0 along a cosine.
    """

    architecture: Architecture = "convolutional"
    loss: DecoderLoss = "pixel"
    weight: float = 0.1
    steps: int = 600
    rate: float = 0.002

    def planned(self, rows: int) -> int:
        """Passes through the encoder, training included: a cached decoder is cheaper, its ledger says the same."""
        return rows + (self.steps * BATCH if self.loss == "feature" else 0)

    def invert(
        self,
        encoder: Encoder,
        z: Tensor,
        images: Images,
        features: Tensor,
        base: Tensor,
        scaler: Scaler,
        runtime: Runtime,
        *,
        epsilon: float | None = None,
        progress: Progress = quiet,
    ) -> Inversion:
        """Images decoded from z.

        Args:
            encoder: frozen.
            z: float32 [m, d], features to reach, in the encoder's units.
            images: the attacker's own, n of them.
            features: float32 [n, d], theirs.
            base: int64 [m], rows of `images` that the decoded ones are compared with.
            scaler: of the clean features.
            runtime: device and precision.
            epsilon: a decoder knows no ball: its image is clipped to the one round the base (L-inf, in 1/255, whole
                grey levels), which mostly leaves a faint copy of the base. None: all of [0, 1].
            progress: called with (steps done, steps in all).

        Raises:
            EncoderError: the features' width is not the encoder's, or a feature of a decoded image is not finite.
            SpecError: fewer than 20 images.
            AttackError: training diverged.
        """
        if z.shape[1] != encoder.card.d:
            raise _unfit(encoder, z)
        decoder = self.trained(encoder, images, features, scaler, runtime, FeatureCache(), progress)
        goal = scaler.apply(z)
        with torch.inference_mode():
            parts = [decoder.network(part.to(runtime.device)).cpu() for part in goal.split(256)]
        decoded = (torch.cat(parts) * 255).round().clamp(0, 255)
        low, high = ball(images.pixels[base], epsilon)
        pixels = torch.minimum(torch.maximum(decoded, low), high).to(torch.uint8)
        distance = (standard_features(encoder, pixels, scaler, runtime) - goal).norm(dim=1)
        figures = {"decoder_error": decoder.error, "mean_image_error": decoder.mean_error}
        return Inversion(pixels, base, distance, self.planned(len(z)), figures)

    def trained(
        self,
        encoder: Encoder,
        images: Images,
        features: Tensor,
        scaler: Scaler,
        runtime: Runtime,
        cache: FeatureCache,
        progress: Progress = quiet,
    ) -> Decoded:
        """The decoder of these images: from this process, else from the cache, else trained and kept.

        Raises:
            EncoderError: the features' width is not the encoder's.
            SpecError: fewer than 20 images.
            AttackError: training diverged.
        """
        if features.shape[1] != encoder.card.d or len(features) != len(images):
            raise _unfit(encoder, features)
        if len(images) < FEWEST:
            raise SpecError(
                f"decoder: at least {FEWEST} training images",
                got=str(len(images)),
                do="pass more, or --inversion matching",
            )
        fields = json.dumps(asdict(self), sort_keys=True)
        told = hashlib.sha256(features.contiguous().numpy().data).hexdigest()
        key = feature_key(encoder, images, runtime, f"decoder {fields} of {told}")
        if key not in _trained:
            with repeatable_initialisation(stream_seed(0, "decoder")):
                network = Network(self.architecture, features.shape[1], tuple(images.pixels.shape[1:]))
            network.to(runtime.device)
            held = cache.get_tensors(key)
            errors = None if held is None else _restore(network, held)
            if errors is None:
                errors = self._train(network, encoder, images.pixels, scaler.apply(features), scaler, runtime, progress)
                state = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
                cache.put_tensors(key, {**state, "errors": torch.tensor(errors, dtype=torch.float64)})
            if len(_trained) >= KEPT:
                del _trained[next(iter(_trained))]
            _trained[key] = Decoded(network.eval().requires_grad_(False), *errors)
        progress(self.steps, self.steps)
        return _trained[key]

    def _train(
        self,
        network: Network,
        encoder: Encoder,
        pixels: Tensor,
        x: Tensor,
        scaler: Scaler,
        runtime: Runtime,
        progress: Progress,
    ) -> tuple[float, float]:
        """Train in place on nine tenths; RMSE of the network and of the mean image on the tenth held out."""
        order = torch.randperm(len(x), generator=stream(0, "decoder/held out"))
        held, rows = order[: len(x) // 10], order[len(x) // 10 :]
        network.mean.copy_(pixels[rows].float().mean(0) / 255)
        encoder.to(runtime.device)
        draws, weights = stream(0, "decoder/batches"), list(network.parameters())
        optimisers = [Adam(weight.data, 0.0) for weight in weights]
        shift, scale = scaler.mean.float().to(runtime.device), scaler.scale.float().to(runtime.device)
        last = math.inf
        for step in range(self.steps):
            progress(step, self.steps)
            batch = rows[torch.randint(len(rows), (BATCH,), generator=draws)]
            wanted = x[batch].to(runtime.device)
            with torch.enable_grad():
                images = network(wanted)
                loss = functional.mse_loss(images, runtime.images(pixels[batch]))
                if self.loss == "feature":
                    with runtime.autocast():
                        z = encoder(images.clamp(0, 1))
                    loss = loss + self.weight * functional.mse_loss((z - shift) / scale, wanted)
                gradients = torch.autograd.grad(loss, weights)
            last = float(loss.detach())
            for optimiser, gradient in zip(optimisers, gradients, strict=True):
                optimiser.leaf.grad = gradient
                optimiser.rate = -self.rate / 2 * (1 + math.cos(math.pi * step / self.steps))
                optimiser.step()
        if not math.isfinite(last):
            raise AttackError("decoder: a finite loss", got=f"{last}", do="lower --inversion-rate")
        return _errors(network, pixels[held], x[held], runtime)


@torch.inference_mode()
def _errors(network: Network, pixels: Tensor, x: Tensor, runtime: Runtime) -> tuple[float, float]:
    """RMSE over all pixels in [0, 1]: of the decoded images, and of the mean image."""
    squares = torch.zeros(2, dtype=torch.float64)
    for block, wanted in zip(pixels.split(256), x.split(256), strict=True):
        real = runtime.images(block)
        for number, guess in enumerate((network(wanted.to(runtime.device)).clamp(0, 1), network.mean)):
            squares[number] += (guess - real).square().sum().cpu()
    error, mean_error = (squares / pixels.numel()).sqrt().tolist()
    return error, mean_error


def _restore(network: Network, held: dict[str, Tensor]) -> tuple[float, float] | None:
    """Fill the network from a cache entry; its errors, or None where the entry is of another network."""
    errors, state = held.get("errors"), {name: value for name, value in held.items() if name != "errors"}
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    # Checked before loading: an entry loaded in part would be where training starts.
    if errors is None or errors.shape != (2,) or {name: value.shape for name, value in state.items()} != shapes:
        return None
    network.load_state_dict(state)
    return float(errors[0]), float(errors[1])


def _unfit(encoder: Encoder, z: Tensor) -> EncoderError:
    return EncoderError(
        f"decoder: features [n, {encoder.card.d}] of encoder {encoder.card.name}, one row per image",
        got=str(list(z.shape)),
        do="pass the features that this encoder gives",
    )
