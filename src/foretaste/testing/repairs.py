"""`check_repair`: what a repair of an encoder promises."""

from __future__ import annotations

from typing import Any

import torch

from foretaste.defences import find
from foretaste.defences.repairs.base import Repair
from foretaste.encoders.base import Encoder
from foretaste.errors import ConformanceError, DataError
from foretaste.features.embed import embed
from foretaste.images import Images
from foretaste.runtime import Runtime
from foretaste.testing import toy
from foretaste.testing.method import configured
from foretaste.testing.promise import Steps, done, keep, tensor_like


def check_repair(repair: str | type[Repair] | Repair, /, **fields: Any) -> None:
    """Mend a tiny encoder and see that a repair keeps what its kind promises.

    Frozen, documented fields and an entry that makes it again; a new encoder in eval mode whose card has the digest of
    its weights and a line about the repair; the same bytes for the same arguments; the suspect and the clean images as
    they were, and the process; fewer clean images than `least` are refused with a DataError, and where it is 0 none
    are needed.

    Args:
        repair: its class, a configured value, or a name as on the command line. Choose settings that are quick and do
            with 64 clean images of 8 x 8 pixels.
        fields: of the repair, beside a class or a name.

    Raises:
        ConformanceError: a promise is broken; it says which.
    """
    value: Repair = configured(repair, fields, lambda name: find(name, "repair"), "repair")
    clean, told = toy.images(64, "owner"), Steps()
    first = _mended(value, clean, told)
    told.check(value.name, 3)
    again = _mended(value, clean, None)
    keep(
        first.sha256() == again.sha256(),
        f"{value.name}: the same arguments give the same bytes, with or without a progress",
        got="others",
        do="draw from the seed alone",
    )
    few = clean.take(torch.arange(max(value.least - 1, 0)))
    if not value.least:
        keep(
            _mended(value, few, None).sha256() == first.sha256(), f"{value.name}: no clean image is read", got="others"
        )
        return
    try:
        value.mend(toy.encoder(), few, 0, Runtime())
    except DataError:
        return
    raise ConformanceError(
        f"{value.name}: a DataError for fewer than {value.least} clean images", got="none", do="call self.check(clean)"
    )


def _mended(value: Repair, clean: Images, told: Steps | None) -> Encoder:
    """The repaired encoder, as it must be."""
    who, suspect, digest = value.name, toy.encoder(), clean.digest
    more = {} if told is None else {"progress": told}
    found = done(who, "mends an encoder", lambda: value.mend(suspect, clean, 3, Runtime(), **more))
    keep(isinstance(found, Encoder), f"{who}: an Encoder as its result", got=f"a {type(found).__name__}")
    same = suspect.sha256() == suspect.card.sha256 and not any(module.training for module in suspect.modules())
    keep(same, f"{who}: the suspect stays as it was", got="another", do="work on own_body(encoder)")
    now = Images(clean.pixels, clean.labels, clean.classes, clean.name).digest if len(clean) else digest
    keep(now == digest, f"{who}: the clean images stay as they were", got="others", do="work on copies")
    still = not any(module.training for module in found.modules())
    still = still and not any(weight.requires_grad for weight in found.parameters())
    keep(still, f"{who}: an encoder in eval mode, without gradients", got="another", do="end with self.settled(...)")
    hooks = [name for name, module in found.named_modules() if module._forward_hooks]
    keep(not hooks, f"{who}: no hook of the repair stays behind", got=", ".join(hooks), do="remove it")
    card = found.card
    keep(card.sha256 == found.sha256(), f"{who}: a card with the digest of the new weights", got=card.sha256[:12])
    keep(
        card.source.startswith(suspect.card.source) and who in card.source and card.mean == suspect.card.mean,
        f"{who}: the suspect's card, with a line about the repair",
        got=repr(card.source),
        do="end with self.settled(...)",
    )
    images = toy.images(12, "test")
    tensor_like(f"{who}: features", embed(found, images.pixels, Runtime()), torch.float32, [12, card.d])
    return found
