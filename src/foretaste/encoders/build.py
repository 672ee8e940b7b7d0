"""`build`: from a spec to an `Encoder` whose contract has been checked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn

from foretaste.encoders import ARCHITECTURES, user_code
from foretaste.encoders.base import Encoder
from foretaste.encoders.card import Card
from foretaste.encoders.contract import check_contract
from foretaste.encoders.keys import fit_keys
from foretaste.encoders.resnet_small import resnet18_small
from foretaste.encoders.spec import EncoderSpec, names_code
from foretaste.encoders.weights import TORCH_SUFFIXES, StateFile, read_state_dict
from foretaste.errors import EncoderError
from foretaste.runtime import stream_seed

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)
SMALL, DIGITS = "resnet18-small", "digits-simclr"
MOST_WIDTH, MOST_SIZE = 512, 4096  # a card may ask for anything; beyond these it is a mistake or a trap


def build(spec: EncoderSpec, sample: tuple[int, int] = (32, 32), seed: int = 0) -> Encoder:
    """Build an encoder on the CPU, load its weights and check that it keeps the contract.

    What decides mean, std and input size, first one wins: the spec; the card in the weight file, if it is of the same
    architecture; the architecture itself (CIFAR-10's for `resnet18-small`, timm's data config, none for user code).

    Args:
        spec: what to build.
        sample: height and width in pixels of the images it will get.
        seed: of the first weights, where no file replaces them.

    Raises:
        EncoderError: unknown reference, code that fails, or a network that does not map float [N, 3, H, W] in [0, 1]
            to finite float [N, d], the same in every pass and batch.
        WeightsError: the weights cannot be read safely or do not fit.
    """
    written = _written(spec.reference)
    given = read_state_dict(spec.weights.expanduser()) if spec.weights else written
    architecture = _architecture(spec.reference, written)
    body, default = _network(architecture, _width(spec, architecture, given), seed)
    cards = [
        file.card if file and file.card and _same(file.card.architecture, architecture) else None
        for file in (given, written)
    ]
    card = _settle(spec, default, told=cards[0] or cards[1])
    if given:
        path = spec.weights or Path(spec.reference)
        own = cards[0] or default.model_copy(
            update={"name": f"{default.name} ({path.stem})", "source": f"weights of {path.name}"}
        )
        card = card.model_copy(update={key: getattr(own, key) for key in ("name", "source", "licence", "command")})
        fitted, dropped = fit_keys(given.tensors, _state(body, spec.reference), str(path))
        card = card.model_copy(update={"dropped_keys": dropped + given.unused})
        body.load_state_dict(fitted)
    _state(body, spec.reference)
    encoder = Encoder(body, card)
    encoder.card = encoder.card.model_copy(update={"d": check_contract(encoder, spec.reference, sample)})
    return encoder


@contextmanager
def repeatable_initialisation(seed: int = 0) -> Iterator[None]:
    """The same first weights every time, though `torch.nn` draws from the global CPU stream; that is put back after."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(seed, "initialisation"))
        yield


def _written(reference: str) -> StateFile | None:
    """The file that the reference itself is, if it is one that Foretaste wrote."""
    if reference == DIGITS:
        with resources.as_file(resources.files("foretaste.encoders") / "assets" / f"{DIGITS}.safetensors") as path:
            return read_state_dict(path)
    if not reference.endswith(".safetensors"):
        return None
    file = read_state_dict(Path(reference).expanduser())
    if file.card is None:
        raise EncoderError(
            f"--encoder {reference}: a file with Foretaste's card inside",
            got="weights alone",
            do=f"name the architecture: --encoder resnet18-small --weights {reference}",
        )
    return file


def _architecture(reference: str, written: StateFile | None) -> str:
    """What builds the network. A file may name one of ours; user code is only run if the user names it."""
    if written is None or written.card is None:
        return reference
    named = _canonical(written.card.architecture)
    if named != SMALL and not named.startswith("timm:"):
        raise EncoderError(
            f"--encoder {reference}: an architecture that a file may name (resnet18-small, timm:NAME)",
            got=f"{named!r}, which would run code",
            do=f"if the code is yours, name it: --encoder YOUR_MODULE:CALLABLE --weights {reference}",
        )
    return named


def _network(architecture: str, width: int, seed: int) -> tuple[nn.Module, Card]:
    """A fresh network and the card it has by itself; `d` is not known yet."""
    random = f"random weights, seed {seed}"
    with repeatable_initialisation(seed):
        if architecture == SMALL:
            plain = {"mean": CIFAR10_MEAN, "std": CIFAR10_STD, "input_size": 32, "options": {"width": width}}
            return resnet18_small(width), Card(name=SMALL, architecture=SMALL, d=0, source=random, **plain)
        if architecture.startswith("timm:"):
            return _timm(architecture, random)
        if names_code(architecture):
            name = architecture.rpartition(":")[2]
            source = "weights as the code makes them"
            return user_code.call(architecture).cpu(), Card(name=name, architecture=architecture, d=0, source=source)
    raise EncoderError(f"--encoder: one of {', '.join(ARCHITECTURES)}", got=repr(architecture), do=_hint(architecture))


def _hint(reference: str) -> str:
    if reference.endswith(".py"):
        return f"name the callable too, as in {reference}:make_encoder"
    if reference.endswith(TORCH_SUFFIXES):
        return f"name the architecture, and pass --weights {reference}"
    close = get_close_matches(reference, ARCHITECTURES, n=1)
    return f"did you mean {close[0]}?" if close else f"for timm's model of that name pass timm:{reference}"


def _timm(architecture: str, source: str) -> tuple[nn.Module, Card]:
    import timm  # takes seconds
    from timm.data.config import resolve_data_config

    name = architecture.removeprefix("timm:")
    if not timm.is_model(name):  # this also keeps out `hf-hub:`, which would use the network
        close = get_close_matches(name, timm.list_models(), n=5)
        raise EncoderError(
            f"--encoder {architecture}: a model of timm {timm.__version__}",
            got="no model of that name",
            do=f"did you mean {', '.join(close)}?" if close else "see timm.list_models()",
        )
    try:
        body: nn.Module = timm.create_model(name, pretrained=False, num_classes=0)
    except Exception as error:  # whatever a model's constructor raises
        raise EncoderError(
            f"--encoder {architecture}: a model that timm can build", got=f"{type(error).__name__}: {error}"
        ) from error
    config = resolve_data_config(model=body)  # type: ignore[no-untyped-call]
    height, side = config["input_size"][1:]
    if height != side:
        raise EncoderError(f"--encoder {architecture}: a model for square images", got=f"{height} x {side}")
    plain = {"mean": config["mean"], "std": config["std"], "input_size": side}
    return body, Card(name=name, architecture=architecture, d=0, source=source, **plain)


def _width(spec: EncoderSpec, architecture: str, given: StateFile | None) -> int:
    """Of `resnet18-small`: as asked, else as the weights have it, else 64."""
    if architecture != SMALL:
        if spec.width is not None:
            raise EncoderError(
                "--width: only with resnet18-small", got=f"--encoder {spec.reference}", do="leave it out"
            )
        return 0
    stems = (
        len(tensor)
        for key, tensor in (given.tensors if given else {}).items()
        if f".{key}".endswith(".conv1.weight") and "layer" not in key and tensor.shape[1:] == (3, 3, 3)
    )
    width = spec.width if spec.width is not None else next(stems, 64)
    if not 1 <= width <= MOST_WIDTH:
        raise EncoderError(f"--width: from 1 to {MOST_WIDTH}", got=str(width), do="the usual widths are 16, 32 and 64")
    return width


def _settle(spec: EncoderSpec, default: Card, told: Card | None) -> Card:
    """The card with mean, std and input size from the spec, the weight file's card or the architecture."""
    found = {key: getattr(told or default, key) for key in ("mean", "std", "input_size")}
    found |= {key: getattr(spec, key) for key in found if getattr(spec, key) is not None}
    mean, std, size = found["mean"], found["std"], found["input_size"]
    if (mean is None) != (std is None):
        raise EncoderError("--mean and --std: both or neither", got=f"mean {mean}, std {std}")
    if mean is not None and not (all(map(math.isfinite, mean + std)) and min(std) > 0):
        raise EncoderError("--mean and --std: finite, std above 0", got=f"mean {mean}, std {std}")
    if size is not None and not 1 <= size <= MOST_SIZE:
        raise EncoderError(f"--input-size: from 1 to {MOST_SIZE} pixels", got=str(size))
    return default.model_copy(update=found)


def _canonical(architecture: str) -> str:
    return SMALL if architecture == DIGITS else architecture


def _same(one: str, other: str) -> bool:
    """Whether two architectures are one, wherever a user's file lies."""
    return _canonical(one) == _canonical(other) or (".py:" in one and Path(one).name == Path(other).name)


def _state(body: nn.Module, reference: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = body.state_dict()
    if odd := [key for key, value in state.items() if not isinstance(value, Tensor) or nn.parameter.is_lazy(value)]:
        raise EncoderError(f"--encoder {reference}: a state dict of tensors", got=f"others in {', '.join(odd[:10])}")
    return state
