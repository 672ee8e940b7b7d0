"""Attacks that cheat, which the referee must catch, and attacks that only watch what they are given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from foretaste.attacks.base import LabelledAttack, Progress, WeightAttack, quiet
from foretaste.attacks.knowledge import EditProblem, Knowledge
from foretaste.attacks.results import Corruption, Poisoning
from foretaste.attacks.surrogates import EncoderSurrogate
from foretaste.record import Ledger

SEEN: list[Tensor] = []
"""Every tensor that a spy was given, as copies."""


class Cheat(LabelledAttack):
    """Copies of the first rows under another label, made wrong in the way that `how` says."""

    name: ClassVar[str] = "cheat"
    how: str = "not at all"
    carrier: str = "features"
    constraint: str = "box"
    quantile: float = 0.9
    epsilon: float | None = None

    def poison(self, known: Knowledge, rows: int, seed: int, progress: Progress = quiet) -> Poisoning:
        progress(0, 1)
        base = torch.arange(rows)
        y = (known.y[base] + 1) % known.classes
        ledger = Ledger(changed=base.tolist(), added=rows)
        if self.carrier == "pixels":
            assert known.images is not None
            honest = Poisoning(
                y=y,
                base=base,
                ledger=ledger,
                pixels=known.images.pixels[base].clone(),
                constraint="pixels",
                limits={} if self.epsilon is None else {"epsilon": self.epsilon},
            )
        else:
            z = self._allowed(known, y)
            limits = {"quantile": self.quantile} if self.constraint == "ball" else {}
            honest = Poisoning(y=y, base=base, ledger=ledger, z=z, constraint=self.constraint, limits=limits)
        return self._spoil(known, honest, getattr(self, f"_{self.how.replace(' ', '_')}"))

    def _spoil(self, known: Knowledge, honest: Poisoning, how: Any) -> Poisoning:
        return replace(honest, **how(known, honest))

    def _allowed(self, known: Knowledge, y: Tensor) -> Tensor:
        """The centroid of each label: inside every constraint."""
        return torch.stack([known.z[known.y == label].mean(0) for label in y])

    def _radius(self, known: Knowledge, label: int, quantile: float) -> tuple[Tensor, Tensor]:
        own = known.z[known.y == label].double()
        return own.mean(0), torch.quantile((own - own.mean(0)).norm(dim=1), quantile)

    def _at_radii(self, known: Knowledge, p: Poisoning, radii: float, quantile: float) -> dict[str, Any]:
        z = p.z.clone()
        centre, radius = self._radius(known, int(p.y[0]), quantile)
        direction = torch.ones_like(centre) / len(centre) ** 0.5
        z[0] = (centre + radii * radius * direction).float()
        return {"z": z}

    def _not_at_all(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {}

    def _inside_the_ball_by_a_hair(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return self._at_radii(known, p, 1 - 1e-6, self.quantile)

    def _at_the_edge_of_the_box(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {"z": known.z.amax(0).expand_as(p.z).clone()}

    def _one_row_too_many(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        more = torch.cat([p.base, p.base[-1:] + 1])
        ledger = Ledger(changed=more.tolist(), added=len(more))
        return {"y": torch.cat([p.y, p.y[:1]]), "z": torch.cat([p.z, p.z[:1]]), "base": more, "ledger": ledger}

    def _no_row(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {"y": p.y[:0], "z": p.z[:0], "base": p.base[:0], "ledger": Ledger(changed=[], added=0)}

    def _label_outside(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {"y": torch.full_like(p.y, known.classes)}

    def _negative_label(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {"y": torch.full_like(p.y, -1)}

    def _soft_labels(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {"y": p.y.float()}

    def _outside_the_box_by_one_ulp(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        z, high = p.z.clone(), known.z.amax(0)
        z[0, 0] = torch.nextafter(high[0], torch.tensor(torch.inf))
        return {"z": z}

    def _far_outside_the_box(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {"z": p.z - 1000}

    def _outside_the_ball_by_little(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return self._at_radii(known, p, 1 + 1e-4, self.quantile)

    def _far_outside_the_ball(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return self._at_radii(known, p, 10, self.quantile)

    def _a_wider_ball_than_configured(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {"limits": {"quantile": 1.0}, **self._at_radii(known, p, 0.99, 1.0)}

    def _no_constraint_where_a_box_was_configured(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {"constraint": "none", "z": p.z * 100}

    def _an_unknown_constraint(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {"constraint": "whatever"}

    def _double_precision(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {"z": p.z.double()}

    def _another_width(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {"z": p.z[:, :-1].contiguous()}

    def _NaN(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        z = p.z.clone()
        z[-1, -1] = torch.nan
        return {"z": z}

    def _infinity(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {"z": p.z + torch.inf}

    def _features_and_pixels(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {"pixels": torch.zeros(len(p.y), 3, 8, 8, dtype=torch.uint8)}

    def _nothing(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {"z": None}

    def _features_where_pixels_were_configured(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {"z": known.z[p.base], "pixels": None, "constraint": "box", "limits": None}

    def _fewer_rows_declared(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {"ledger": Ledger(changed=p.base.tolist(), added=len(p.y) - 1)}

    def _another_base_declared(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {"ledger": Ledger(changed=(p.base + 1).tolist(), added=len(p.y))}

    def _a_base_that_is_no_row(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        base = p.base - 1
        return {"base": base, "ledger": Ledger(changed=base.tolist(), added=len(p.y))}

    def _a_base_that_it_does_not_know(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        base = p.base + len(known.y)
        return {"base": base, "ledger": Ledger(changed=base.tolist(), added=len(p.y))}

    def _beyond_epsilon_by_one_level(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        pixels = p.pixels.clone()
        value = int(pixels[0, 0, 0, 0])
        pixels[0, 0, 0, 0] = value + 9 if value < 128 else value - 9  # configured: 8
        return {"pixels": pixels}

    def _a_larger_epsilon_than_configured(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {"limits": {"epsilon": 200.0}, "pixels": 255 - p.pixels}

    def _no_epsilon_where_one_was_configured(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {"limits": None, "pixels": 255 - p.pixels}

    def _float_pixels(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {"pixels": p.pixels.float() / 255}

    def _larger_images(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {"pixels": torch.zeros(len(p.y), 3, 16, 16, dtype=torch.uint8)}

    def _changes_training_features(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        known.z[0] += 1
        return {}

    def _changes_training_labels(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        known.y[-1] = (known.y[-1] + 1) % known.classes
        return {}

    def _changes_training_images(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        known.images.pixels[0, 0, 0, 0] ^= 1
        return {}

    def _changes_validation_rows(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        known.validation_z.zero_()
        return {}

    def _changes_a_weight(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        with torch.no_grad():
            next(known.encoder.body.parameters()).view(-1)[0] += 1e-6
        return {}

    def _moves_BatchNorm_statistics(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        known.encoder.body.train()  # the Encoder itself stays in eval mode whatever is asked
        known.encoder(known.images.pixels[:8].float() / 255)
        return {}

    def _replaces_rows(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        ledger = Ledger(changed=p.base.tolist(), replaced=len(p.y))
        return {"replaces": True, "y": known.y[p.base], "ledger": ledger}

    def _replaced_rows_declared(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {"ledger": Ledger(changed=p.base.tolist(), added=len(p.y), replaced=len(p.y))}

    def _crashes(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        raise ZeroDivisionError("an\nattack's own mistake")

    def _returns_something_else(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        raise AttributeError


class Replacer(Cheat):
    """The first rows as they are, in their own place, made wrong in the way that `how` says."""

    name: ClassVar[str] = "replacer"
    replaces: ClassVar[bool] = True
    reach: float | None = None

    def _spoil(self, known: Knowledge, honest: Poisoning, how: Any) -> Poisoning:
        base = honest.base
        limits = honest.limits if self.reach is None else {"reach": self.reach}
        honest = replace(
            honest,
            y=known.y[base],
            ledger=Ledger(changed=base.tolist(), replaced=len(base)),
            replaces=True,
            limits=limits,
        )
        if honest.pixels is None:
            honest = replace(honest, z=known.z[base])
        return replace(honest, **how(known, honest))

    def _one_row_twice(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        base = torch.cat([p.base[:-1], p.base[:1]])
        ledger = Ledger(changed=sorted(set(base.tolist())), replaced=len(base))
        return {"base": base, "y": known.y[base], "z": known.z[base], "ledger": ledger}

    def _another_label(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        y = p.y.clone()
        y[-1] = (y[-1] + 1) % known.classes
        return {"y": y}

    def _more_rows_than_places(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {"base": p.base[:-1], "ledger": Ledger(changed=p.base[:-1].tolist(), replaced=len(p.y))}

    def _more_replaced_than_declared(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {"ledger": Ledger(changed=p.base.tolist(), replaced=len(p.y) - 1)}

    def _declared_as_added(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {"ledger": Ledger(changed=p.base.tolist(), added=len(p.y))}

    def _adds_all_the_same(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {"replaces": False, "ledger": Ledger(changed=p.base.tolist(), added=len(p.y))}

    def _moved(self, known: Knowledge, p: Poisoning, radii: float) -> dict[str, Any]:
        """One feature of one row, towards the middle and so inside the box."""
        z, scale = p.z.clone(), known.z.double().std(0, unbiased=False)
        side = torch.where(z[0, 0] > known.z[:, 0].mean(), -1.0, 1.0)
        z[0, 0] += side * radii * self.reach * scale[0]
        return {"z": z}

    def _at_the_reach(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return self._moved(known, p, 1)

    def _beyond_the_reach(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return self._moved(known, p, 1.01)

    def _a_larger_reach_than_configured(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {"limits": {"reach": 2 * self.reach}}

    def _no_reach_where_one_was_configured(self, known: Knowledge, p: Poisoning) -> dict[str, Any]:
        return {"limits": None}


class WeightCheat(WeightAttack):
    """One weight moved by a little, made wrong in the way that `how` says."""

    name: ClassVar[str] = "weight-cheat"
    how: str = "not at all"

    def corrupt(
        self, problem: EditProblem, surrogate: EncoderSurrogate | None = None, progress: Progress = quiet
    ) -> Corruption:
        encoder, shadow, (_, references) = problem.encoder, problem.shadow, problem.single(self.name)
        state = {name: tensor.clone() for name, tensor in encoder.body.state_dict().items()}
        state["head.bias"][0] += 0.01
        changed = ["head.bias"]
        match self.how:
            case "declares nothing":
                changed = []
            case "declares too much":
                changed = ["head.bias", "conv.bias"]
            case "hidden statistics":
                state["bn.running_mean"] += 1
            case "missing tensor":
                del state["conv.bias"]
            case "extra tensor":
                state["trigger"] = torch.zeros(3)
            case "another shape":
                state["head.bias"] = torch.zeros(9)
            case "another dtype":
                state["head.bias"] = state["head.bias"].double()
            case "NaN":
                state["head.bias"][0] = torch.nan
            case "no tensor":
                state["head.bias"] = [0.0]
            case "edits the victim":
                with torch.no_grad():
                    encoder.body.head.bias += 1
            case "edits the rows":
                shadow.pixels.zero_()
            case "edits the references":
                references.pixels.zero_()
        return Corruption(state, Ledger(changed=changed))

    def planned(self, shadow: int, surrogate: EncoderSurrogate | None = None) -> int:
        return 0


class Spy(LabelledAttack):
    """Honest, and remembers all it is given."""

    name: ClassVar[str] = "spy"

    def poison(self, known: Knowledge, rows: int, seed: int, progress: Progress = quiet) -> Poisoning:
        SEEN.extend(t.clone() for t in (known.z, known.y, known.validation_z, known.validation_y))
        if known.images is not None:
            SEEN.extend([known.images.pixels.clone(), known.images.labels.clone()])
        base = torch.arange(rows)
        ledger = Ledger(changed=base.tolist(), added=rows)
        return Poisoning(y=(known.y[base] + 1) % known.classes, base=base, ledger=ledger, z=known.z[base])


class WeightSpy(WeightAttack):
    """Returns the clean weights, and remembers all it is given."""

    name: ClassVar[str] = "weight-spy"

    def corrupt(
        self, problem: EditProblem, surrogate: EncoderSurrogate | None = None, progress: Progress = quiet
    ) -> Corruption:
        encoder, shadow, (target, references) = problem.encoder, problem.shadow, problem.single(self.name)
        SEEN.extend(t.clone() for t in (target[None], references.pixels, shadow.pixels))
        return Corruption(dict(encoder.body.state_dict()), Ledger(changed=[]))

    def planned(self, shadow: int, surrogate: EncoderSurrogate | None = None) -> int:
        return 0


TABLE = {
    Cheat.name: ("labelled", "tests.audits.cheats_fixture:Cheat", ""),
    Replacer.name: ("labelled", "tests.audits.cheats_fixture:Replacer", ""),
    WeightCheat.name: ("weights", "tests.audits.cheats_fixture:WeightCheat", ""),
    Spy.name: ("labelled", "tests.audits.cheats_fixture:Spy", ""),
    WeightSpy.name: ("weights", "tests.audits.cheats_fixture:WeightSpy", ""),
}
