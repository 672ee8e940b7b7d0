"""PA-CL against a defence of the encoder: simulations against the defences themselves, and edits that meet them."""

from __future__ import annotations

import copy
import math
from functools import cache
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cosine_similarity

from foretaste import attacks, defences
from foretaste.attacks.editing.adaptive import prepared_behind, pulled_back
from foretaste.attacks.editing.border import Border
from foretaste.attacks.editing.descent import Ahead, Descent
from foretaste.attacks.editing.editable_encoder import EditableEncoder
from foretaste.attacks.editing.problem import PreparedProblem, prepare_problem
from foretaste.attacks.editing.shadow_cache import prepare_shadow
from foretaste.attacks.knowledge import EditProblem
from foretaste.attacks.results import Corruption
from foretaste.attacks.weights.pacl import PACL
from foretaste.audits import adaptive
from foretaste.audits.adaptive import named_encoder_defence, planned
from foretaste.audits.grid import configured
from foretaste.audits.spec import AuditSpec, MethodSpec
from foretaste.defences import DEFENCES
from foretaste.defences.guards.views_vote import ViewsVote
from foretaste.defences.repairs.average import Average
from foretaste.defences.repairs.base import Repair
from foretaste.defences.repairs.clp import CLP
from foretaste.defences.repairs.distil import Distil
from foretaste.defences.repairs.fine_prune import FinePrune
from foretaste.defences.repairs.fine_tune import FineTune
from foretaste.defences.repairs.student import drawn_anew, fresh
from foretaste.defences.scans.weight_statistics import WeightStatistics, tensor_statistics
from foretaste.defences.surrogates import ENCODER, encoder_surrogate, surrogates
from foretaste.defences.surrogates.drift import FLOOR, WEIGHT
from foretaste.defences.surrogates.weight_statistics import statistics
from foretaste.encoders.affine import mapped
from foretaste.encoders.base import Encoder
from foretaste.errors import SpecError
from foretaste.pretrain.views import make_views
from foretaste.runtime import Runtime, digest_tensors, stream
from tests.attacks import attacks_fixture as toy
from tests.attacks.weights_fixture import OWN, SHADOW, TARGET, encoder_of, loaded

CPU = Runtime()
FIELDS: dict[str, Any] = {"batch": 64, "steps": 40, "trainable": "last-two-stages"}


def problem_of(encoder: Encoder) -> EditProblem:
    return EditProblem(encoder, (TARGET,), (OWN,), SHADOW, 0, CPU)


def reckoning(attack: PACL, encoder: Encoder) -> Corruption:
    return attack.corrupt(problem_of(encoder), adaptive.encoder_surrogate(attack, encoder, SHADOW, CPU))


@cache
def corrupt(against: str | None = None, **fields: Any) -> Corruption:
    attack = PACL(**{**FIELDS, **fields}, against=against)
    return reckoning(attack, encoder_of())


def moved(encoder: Encoder, spread: float = 0.3) -> Encoder:
    """A copy with other kernels."""
    one, draws = copy.deepcopy(encoder), stream(3, "moved")
    for tensor in one.body.parameters():
        if tensor.ndim > 1:
            tensor.data += spread * tensor.std() * torch.randn(tensor.shape, generator=draws)
    return one


def parts(attack: PACL, encoder: Encoder) -> tuple[EditableEncoder, PreparedProblem]:
    cache = prepare_shadow(encoder, SHADOW, CPU, attack.trainable, False)
    return cache.copy_of(encoder, CPU), prepare_problem(
        problem_of(encoder), attack.references, cache, stream(0, "attack")
    )


def mended(repair: Repair, encoder: Encoder) -> Encoder:
    if isinstance(repair, Average):
        return repair.mend_with(encoder, encoder_of())
    return repair.mend(encoder, SHADOW, 0, CPU)


# Repairs.

REPAIRS: list[Repair] = [Average(share=0.5), Average(share=0.2), CLP(u=1.0), FinePrune(share=0.4, layers=3, epochs=0)]


@pytest.mark.parametrize("repair", REPAIRS, ids=repr)
def test_a_simulated_repair_is_the_repair(repair: Repair) -> None:
    """The network within the block has the bytes, but for rounding, of what the defender would make of it."""
    suspect = moved(encoder_of())
    names = [name for name, weight in suspect.body.named_parameters() if weight.ndim > 1]
    affine = encoder_surrogate(repair, encoder_of(), SHADOW, CPU).repaired(suspect, names)
    before = digest_tensors(suspect.body.state_dict())
    wanted = mended(repair, suspect).body.state_dict()
    assert affine and digest_tensors(wanted) != before
    with mapped(suspect, affine):
        for name, tensor in suspect.body.state_dict().items():
            assert torch.allclose(tensor, wanted[name], rtol=1e-6, atol=1e-7), name
    assert digest_tensors(suspect.body.state_dict()) == before
    with pytest.raises(ZeroDivisionError), mapped(suspect, affine):
        raise ZeroDivisionError
    assert digest_tensors(suspect.body.state_dict()) == before


@pytest.mark.parametrize("repair", REPAIRS, ids=repr)
def test_the_loss_behind_is_that_of_the_repaired_network_and_so_is_its_slope(repair: Repair) -> None:
    attack = PACL(trainable="last-two-stages", batch=64)
    edited, prepared = parts(attack, encoder_of())
    names = prepared.cache.names
    draws = stream(4, "nudge")
    for weight in edited.weights:
        weight.data += 0.2 * weight.std() * torch.randn(weight.shape, generator=draws)
    found = encoder_surrogate(repair, encoder_of(), SHADOW, CPU)
    affine = found.repaired(edited.encoder, names)
    seen = prepared_behind(edited.encoder, affine, prepared)
    descent = Descent(attack.objective, attack._schedule, edited, prepared, stream(0, "attack"), found)
    pixels = (prepared.targets,)
    value, _ = descent._later(pixels, (edited.enter(prepared.targets),), Ahead(affine, seen, []))

    def naive(encoder: Encoder) -> float:
        """L_te by hand: the mended network's own features, in units of its own shadow features."""
        mask = copy.deepcopy(encoder)
        with mapped(mask, affine):  # with the same channels gone
            z, shadow = toy.embedded(mask, TARGET[None]), toy.embedded(mask, seen.cache.pixels[seen.cache.rows])
            references = toy.embedded(mask, prepared.references)
        scale = shadow.double().std(0, correction=0)
        scale = torch.where(scale <= 1e-7 * shadow.mean(0).abs(), torch.ones_like(scale), scale)
        scale = scale.clamp(min=0.5 * scale.median())
        return float(((z.double() - references.double().mean(0)) / scale).square().mean())

    assert float(value.detach()) == pytest.approx(naive(edited.encoder), rel=1e-3)
    exact = mended(repair, edited.encoder)
    with torch.no_grad(), mapped(edited.encoder, affine):
        ours = toy.embedded(edited.encoder, TARGET[None])
    assert torch.allclose(ours, toy.embedded(exact, TARGET[None]), rtol=1e-4, atol=1e-5)
    gradients = torch.autograd.grad(value, edited.weights)
    body, leaves = edited.encoder.body, [w.detach().clone().requires_grad_() for w in edited.weights]
    through = {key: keep * body.state_dict()[key] + add for key, (keep, add) in affine.items()}
    for name, leaf in zip(names, leaves, strict=True):
        keep, add = affine.get(name, (torch.ones(()), torch.zeros(())))
        through[name] = keep * leaf + add
    images = edited.encoder.prepared(CPU.images(TARGET[None]))
    z = functional_call(body, through, (images,))
    wanted = torch.autograd.grad(attack.objective.losses(z, z[:0], seen)[0], leaves)
    for ours, theirs in zip(gradients, wanted, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


def test_the_slope_through_a_mean_is_the_share_of_it() -> None:
    g = [torch.ones(2, 2), torch.ones(2)]
    found = pulled_back(g, ["a", "b"], {"a": (torch.tensor(0.25), torch.zeros(2, 2))})
    assert torch.equal(found[0], torch.full((2, 2), 0.25)) and torch.equal(found[1], g[1])


def closeness(encoder: Encoder) -> float:
    """Cosine of the target and its wanted class's mean, less that with its own, in the encoder's own units."""
    z = toy.embedded(encoder, SHADOW.pixels)
    x = (toy.embedded(encoder, TARGET[None])[0] - z.mean(0)) / z.std(0).clamp(min=1e-3)
    means = [((z[SHADOW.labels == c] - z.mean(0)) / z.std(0).clamp(min=1e-3)).mean(0) for c in (2, 0)]
    return float(cosine_similarity(x, means[0], dim=0) - cosine_similarity(x, means[1], dim=0))


def test_the_adaptive_edit_survives_a_repair_that_undoes_the_plain_one() -> None:
    repair = Average(share=0.7)
    plain, adaptive = (mended(repair, loaded(corrupt(said).state)) for said in (None, "average/share=0.7"))
    assert closeness(plain) < 0.2 < 0.6 < closeness(adaptive)
    figures = corrupt("average/share=0.7").ledger.figures
    assert figures["similarity_behind"] > 0.9
    assert figures["target_loss_behind"] < figures["target_loss_behind_before"]


def test_behind_a_student_with_a_new_last_stage_it_is_the_clean_one_again() -> None:
    """What the student draws anew is the clean encoder's, and what it keeps is the suspect's."""
    repair = Distil(student="last-stage")
    suspect, clean = moved(encoder_of()), encoder_of().body.state_dict()
    names = [name for name, weight in suspect.body.named_parameters() if weight.ndim > 1]
    was = {name: tensor.clone() for name, tensor in suspect.body.state_dict().items()}
    fresh_state = fresh(suspect, 0, last=True).state_dict()
    with mapped(suspect, encoder_surrogate(repair, encoder_of(), SHADOW, CPU).repaired(suspect, names)):
        state = suspect.body.state_dict()
        for name in names:
            anew = not torch.equal(fresh_state[name], was[name])
            assert torch.equal(state[name], clean[name] if anew else was[name]), name
    assert {torch.equal(fresh_state[name], was[name]) for name in names} == {True, False}


def test_an_edit_against_a_student_lies_before_its_last_stage() -> None:
    fields = {"trainable": "all", "steps": 60}
    made, plain = corrupt("distil/student=last-stage", **fields), corrupt(**fields)
    anew = drawn_anew(encoder_of().body)
    clean = encoder_of().body.state_dict()
    gaps = [closeness(loaded(one.state | {name: clean[name] for name in anew})) for one in (made, plain)]
    assert gaps[0] > 0.5 and gaps[0] > gaps[1] + 0.3
    assert made.ledger.figures["similarity_behind"] > 0.9
    with pytest.raises(SpecError, match="a student that keeps early layers of the suspect; got a fresh one"):
        corrupt("distil")
    with pytest.raises(SpecError, match="got the last stage alone; set trainable"):
        corrupt("distil/student=last-stage", trainable="last-stage")


def test_fine_tuning_is_simulated_at_the_pace_of_the_repair() -> None:
    found = encoder_surrogate(FineTune(lr=0.02, momentum=0.75), encoder_of(), SHADOW, CPU)
    assert found.rate == pytest.approx(0.08) and found.steps > 0
    assert encoder_surrogate(FinePrune(epochs=0), encoder_of(), SHADOW, CPU).steps == 0
    made = corrupt("fine-tune/lr=0.001", steps=2)
    assert made.ledger.passes > corrupt(steps=2).ledger.passes
    assert "similarity_behind" in made.ledger.figures


# Scans.


def test_statistics_are_the_scans_and_are_kept() -> None:
    clean = encoder_of()
    state = clean.body.state_dict()
    found = encoder_surrogate(WeightStatistics(), clean, SHADOW, CPU)
    wanted, edited = tensor_statistics(state), moved(clean, 0.1).body.state_dict()
    for name in ("net.0.weight", "net.3.weight"):
        ours = statistics(state[name].double())
        keys = [key for key in wanted if key.startswith(f"{name} ")]
        assert ours.tolist() == pytest.approx([wanted[key] for key in keys])
        kept = found.settle(name, edited[name])
        off, was = (tensor_statistics({name: one}) for one in (kept, edited[name]))
        assert max(abs(was[key] - wanted[key]) for key in keys) > 1e-2
        assert max(abs(off[key] - wanted[key]) for key in keys) < 1e-4
        assert (kept - edited[name]).norm() < 0.5 * (edited[name] - state[name]).norm()
    assert torch.equal(found.settle("net.0.weight", state["net.0.weight"]), state["net.0.weight"])


def test_an_edit_against_the_statistics_leaves_them_as_they_were() -> None:
    made = corrupt("weight-statistics", steps=12)
    before, after = tensor_statistics(encoder_of().body.state_dict()), tensor_statistics(made.state)
    largest = max(abs(after[key] - before[key]) for key in before)
    assert largest == pytest.approx(made.ledger.figures["statistics_moved"]) and largest < 1e-4
    assert made.ledger.figures["similarity"] > 0.5


def test_the_penalty_of_drift_is_that_of_plain_loops() -> None:
    found: Any = encoder_surrogate(defences.configure("drift", {}), encoder_of(), SHADOW, CPU)
    draws = stream(7, "drift")
    clean = torch.randn(12, 16, generator=draws)
    shadow, z, wanted = (clean + 0.3 * torch.randn(12, 16, generator=draws), clean[:2] * 1.1, clean[5])

    def cosine(a: Tensor, b: Tensor) -> float:
        return float(a @ b / a.norm() / b.norm())

    gains = []
    for x, was in zip(shadow, clean, strict=True):
        before = [cosine(was, centre) for centre in found.centres]
        own = before.index(max(before))
        gains.append(max(cosine(x, c) - before[k] for k, c in enumerate(found.centres) if k != own))
    centre = sorted(gains)[5]  # torch's median of an even number is the lower of the two
    spread = 1.4826 * sorted(abs(gain - centre) for gain in gains)[5]
    naive = WEIGHT * math.log((1 + cosine(z.mean(0), wanted) - centre) / (spread + FLOOR))
    assert float(found.suspicion(z, wanted, shadow, clean)) == pytest.approx(naive, rel=1e-5)


@pytest.mark.parametrize("said", ["neighbours", "drift"])
def test_the_target_stops_just_over_the_border(said: str) -> None:
    made, plain = corrupt(said), corrupt()
    edited, prepared = parts(PACL(**FIELDS), encoder_of())
    x, shadow = (prepared.cache.scaler.apply(prepared.cache.z[rows]) for rows in (slice(None), prepared.cache.rows))
    t = prepared.cache.scaler.apply(toy.embedded(encoder_of(), TARGET[None]))
    own = shadow[cosine_similarity(t, shadow).argsort(descending=True)[:20]].mean(0)
    z = toy.embedded(loaded(made.state), TARGET[None])
    now = prepared.cache.scaler.apply(z)[0]
    to_class = prepared.similarity(z, prepared.pairs[0])
    gap = to_class - float(cosine_similarity(now, own, dim=0))
    assert len(x) == 400 and torch.allclose(Border.of(edited, prepared).own[0], own, atol=1e-4)
    assert gap == pytest.approx(0.1, abs=0.02) and made.ledger.figures["gap"] == pytest.approx(gap, abs=1e-3)
    if said == "neighbours":  # against drift the weights move more, so that other images do
        assert made.ledger.figures["l2_change"] < plain.ledger.figures["l2_change"]
    assert made.ledger.figures["similarity"] < plain.ledger.figures["similarity"]


# Guards.


def test_views_are_the_guards_own_beside_the_image_itself() -> None:
    guard = ViewsVote(noise=2.0)
    found = encoder_surrogate(guard, encoder_of(), SHADOW, CPU).view(TARGET, 5, stream(1, "views"))
    draws = stream(1, "views")
    wanted = make_views(torch.stack([TARGET] * 4), guard.views, draws) * 255
    wanted = (wanted + 2 * torch.randn(wanted.shape, generator=draws)).round().clamp(0, 255).to(torch.uint8)
    assert found is not None and torch.equal(found[0], TARGET) and torch.equal(found[1:], wanted)


def test_an_edit_against_views_holds_under_views_that_it_never_saw() -> None:
    made, plain = (loaded(corrupt(said, steps=25).state) for said in ("views-vote", None))
    guard = ViewsVote()
    views = (make_views(torch.stack([TARGET] * 32), guard.views, stream(9, "fresh")) * 255).round().to(torch.uint8)
    _, prepared = parts(PACL(**FIELDS), encoder_of())
    each = [
        [prepared.similarity(z[None], prepared.pairs[0]) for z in toy.embedded(one, views)] for one in (made, plain)
    ]
    assert sum(each[0]) / 32 > sum(each[1]) / 32
    assert "similarity_views" in corrupt("views-vote", steps=25).ledger.figures


# What can be said.


def test_every_defence_of_the_encoder_is_simulated_or_refused_with_the_names() -> None:
    of_encoders = {name for name, entry in DEFENCES.items() if entry.kind in ("repair", "scan", "guard")}
    assert of_encoders - set(surrogates(*ENCODER)) == {"decree", "reconstruction"}
    for name in ("decree", "reconstruction", "sphere"):
        with pytest.raises(SpecError, match=f"one of drift, .*clp, .*; got {name}, which"):
            named_encoder_defence(PACL(against=name))
    with pytest.raises(SpecError, match="there is nothing to evade"):
        named_encoder_defence(PACL(against="decree"))
    with pytest.raises(SpecError, match="clp: fields u; got u = -1"):
        named_encoder_defence(PACL(against="clp/u=-1"))
    with pytest.raises(SpecError, match=r"defence: one of .*; got 'clpp'"):
        named_encoder_defence(PACL(against="clpp"))


def test_an_audit_refuses_before_any_work() -> None:
    spec = AuditSpec.make({"attacks": ["pacl:against=reconstruction"]})
    with pytest.raises(SpecError, match="reconstruction, which"):
        configured(spec)


def test_an_attack_is_read_back_and_plain_ones_keep_their_entry() -> None:
    attack = attacks.configure("pacl", {"against": "clp/u=2", "steps": 5})
    assert attack.variant == "against clp/u=2, steps 5"
    method = MethodSpec.parse(str(MethodSpec.of(attack)))
    assert attacks.configure(method.name, method.fields) == attack
    assert "against" not in PACL().entry() and attack.entry()["against"] == "clp/u=2"


def test_contradictions_and_a_missing_simulation_are_named() -> None:
    with pytest.raises(ValidationError, match="against simulates an encoder whose statistics stay"):
        PACL(against="clp", batchnorm="moving")
    with pytest.raises(SpecError, match="against reckons with a defence"):
        attacks.configure("pacl-minimal", {"against": "clp"})
    with pytest.raises(SpecError, match="pacl against clp: a surrogate of that defence; got none"):
        PACL(**FIELDS, against="clp").corrupt(problem_of(encoder_of()))


@pytest.mark.parametrize("said", ["clp/u=1", "fine-prune/share=0.4/batch=64"])
def test_the_same_arguments_give_the_same_bytes_and_the_clean_encoder_stays(said: str) -> None:
    clean = encoder_of()
    before = digest_tensors(clean.body.state_dict())
    attack = PACL(**{**FIELDS, "steps": 4}, against=said)
    one, two = (reckoning(attack, clean) for _ in range(2))
    assert digest_tensors(one.state) == digest_tensors(two.state) != before
    assert digest_tensors(clean.body.state_dict()) == before
    kept = [key for key in one.state if "running" in key or key.endswith("bias")]
    assert not set(kept) & set(one.ledger.changed) and "similarity_behind" in one.ledger.figures


@pytest.mark.parametrize("against", ["clp/u=2", "fine-tune/epochs=1", "drift", "views-vote/votes=3"])
def test_the_plan_counts_what_is_simulated(against: str) -> None:
    """As the ledger does: the steps between a run of three and one of six, neither of which gets there."""
    made = [corrupt(against, steps=steps, enough=0.999).ledger.passes for steps in (6, 3)]
    lent = [PACL(**{**FIELDS, "steps": steps}, against=against) for steps in (6, 3)]
    found, plain = ([f(one) for one in lent] for f in (reckoned, lambda one: one.planned(len(SHADOW))))
    assert found[0] - found[1] == made[0] - made[1]
    assert (found[0] > plain[0]) == (against != "drift")


def reckoned(attack: PACL) -> int:
    return planned(attack, encoder_of(), SHADOW, CPU)
