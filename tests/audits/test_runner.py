from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from foretaste.audits.grid import Trial, plan
from foretaste.audits.prepare import prepare
from foretaste.audits.runner import SPEC_FILE, run
from foretaste.audits.spec import AuditSpec
from foretaste.errors import RecordError, SpecError
from foretaste.record import FILE_NAME, TrialRecord, read
from tests.audits.audit_fixture import (
    Watched,
    audit,
    command,
    feature_audit,
    image_audit,
    make_world,
    numbers,
    trials_in,
)
from tests.audits.cheats_fixture import Spy

EXACT = "exact:steps=4"
pytestmark = pytest.mark.usefixtures("cheats")


def planned(spec: AuditSpec) -> list[Trial]:
    return plan(prepare(spec))


def test_a_finished_audit_is_not_run_again(world: Path, tmp_path: Path) -> None:
    spec = feature_audit(world, attacks=["label-flip", EXACT])
    first = audit(spec, tmp_path)
    content = (tmp_path / FILE_NAME).read_bytes()
    watched = Watched()
    second = run(spec, tmp_path, watched)
    assert watched.labels == []
    assert watched.counts == (3, 3)
    assert second.records == first.records
    assert (tmp_path / FILE_NAME).read_bytes() == content


def test_an_interrupted_audit_ends_as_one_that_was_not(world: Path, tmp_path: Path) -> None:
    spec = image_audit(world, attacks=["label-flip", EXACT, f"{EXACT}:carrier=pixels"], seeds=2)
    whole = audit(spec, tmp_path / "whole")
    for error in (KeyboardInterrupt, SystemExit):
        folder = tmp_path / error.__name__
        with pytest.raises(error):
            run(spec, folder, Watched(stop_after=3, error=error))
        assert len(read(folder)) == 3
        watched = Watched()
        outcome = run(spec, folder, watched)
        assert watched.counts == (7, 3)
        assert len(watched.labels) == 4
        assert numbers(outcome.records) == numbers(whole.records)


def test_an_unfinished_line_is_run_again(world: Path, tmp_path: Path) -> None:
    spec = feature_audit(world, attacks=[EXACT], seeds=2)
    whole = audit(spec, tmp_path)
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes()[:-200])
    watched = Watched()
    again = run(spec, tmp_path, watched)
    assert watched.labels == ["exact (features, box, steps 4) at 0.1, seed 1"]
    assert numbers(again.records) == numbers(whole.records)
    assert all(line.startswith('{"format"') for line in path.read_text().splitlines())


KILLED = """
import os, signal
from pathlib import Path
from tests.audits.audit_fixture import Watched
from foretaste.audits.spec import AuditSpec
from foretaste.audits.runner import run


class Killed(Watched):
    def step(self, done, total):
        if len(self.records) == 3 and done >= total // 2:
            os.kill(os.getpid(), signal.SIGKILL)


run(AuditSpec.read(Path("{audit}")), Path("{folder}"), Killed())
"""


def test_a_killed_audit_continues_with_the_same_command(world: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of the second labelled attack, then half a line of rubbish, then the command again."""
    spec = image_audit(world, attacks=["label-flip", f"{EXACT}:carrier=pixels"], seeds=2)
    given = tmp_path / "given.yaml"
    given.write_text(spec.model_copy(update={"precision": "auto"}).to_yaml())
    folder = tmp_path / "out"
    program = KILLED.format(audit=given, folder=folder)
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    killed = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(read(folder)) == 3
    with (folder / FILE_NAME).open("ab") as file:
        file.write(b'{"format":"foretaste.tri')
    assert command("audit", given, "--trust-code", "--out", folder) == 0
    precision = AuditSpec.read(folder / SPEC_FILE).precision
    whole = audit(spec.model_copy(update={"precision": precision}), tmp_path / "whole")
    assert (folder / "report.html").is_file()
    # The reason of the precision is that of a timing in the first run; it is no result.
    found, expected = (
        {key: {**value, "machine": None} for key, value in numbers(records).items()}
        for records in (read(folder), whole.records)
    )
    assert found == expected


def test_a_larger_grid_keeps_what_is_there(world: Path, tmp_path: Path) -> None:
    spec = image_audit(world, attacks=["label-flip", "weight-spy"], budgets=[0.1], seeds=1, targets=2)
    first = audit(spec, tmp_path)
    grown = spec.model_copy(
        update={"budgets": (0.1, 0.2), "seeds": 2, "targets": 3, "attacks": (*spec.attacks, *image_attacks(EXACT))}
    )
    watched = Watched()
    outcome = run(grown, tmp_path, watched)
    assert watched.counts == (1 + 4 + 3 + 4, 4)
    kept = {record.trial: record for record in outcome.records}
    assert all(kept[record.trial] == record for record in first.records)
    # A smaller grid again: nothing to do, and only its own trials are counted.
    watched = Watched()
    assert len(run(spec, tmp_path, watched).records) == 4
    assert watched.labels == []


def image_attacks(*texts: str) -> tuple[Any, ...]:
    return AuditSpec.make({"attacks": list(texts)}).attacks


def test_failed_trials_are_tried_again(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = feature_audit(world, attacks=["label-flip", "spy"])
    honest = Spy.poison
    monkeypatch.setattr(Spy, "poison", lambda *_: 1 / 0)
    first = audit(spec, tmp_path)
    assert [record.status for record in first.failures] == ["failed"]
    assert first.failures[0].error.type == "ZeroDivisionError"
    monkeypatch.setattr(Spy, "poison", honest)
    watched = Watched()
    second = run(spec, tmp_path, watched)
    assert watched.counts == (3, 2)
    assert watched.labels == ["spy at 0.1, seed 0"]
    assert not second.failures
    assert len((tmp_path / FILE_NAME).read_text().splitlines()) == 4
    assert len(read(tmp_path)) == 3


# One trial alone.


def test_one_trial_alone_gives_the_same_scores(world: Path, tmp_path: Path) -> None:
    spec = image_audit(world, attacks=["label-flip", EXACT, "weight-spy"], budgets=[0.1, 0.2], seeds=2)
    whole = trials_in(audit(spec, tmp_path / "whole").folder)
    for index in (0, 2, 6, 10):
        wanted = list(whole.values())[index]
        alone = audit(spec, tmp_path / f"{index}", only=wanted.trial[:10])
        assert [record.trial for record in alone.records] == list(dict.fromkeys([next(iter(whole)), wanted.trial]))
        assert numbers(alone.records)[wanted.trial] == numbers([wanted])[wanted.trial]


def test_the_command_of_each_record_makes_it_again(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also after the folder was run with another grid, and where its name has a space."""
    spec = image_audit(world, attacks=["emn:steps=3:rounds=1:stop=1e-05", "weight-spy"], budgets=[0.15], seeds=2)
    folder = tmp_path / "my audit"
    records = audit(spec, folder).records
    audit(spec.model_copy(update={"attacks": image_attacks("label-flip"), "budgets": (0.3,)}), folder)
    monkeypatch.chdir(tmp_path)
    for record in records:
        words = shlex.split(record.command)
        assert words[:2] == ["foretaste", "audit"]
        assert command(*words[1:]) == 0
        assert numbers([trials_in(tmp_path / "again")[record.trial]]) == numbers([record])
    assert len(trials_in(tmp_path / "again")) == len(records)
    assert "Traceback" not in capsys.readouterr().err


def test_a_trial_that_is_not_there(world: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"--only: .*got 'ffff"):
        audit(feature_audit(world), tmp_path / "out", only="ffffffffffffffffff")
    assert not (tmp_path / "out").exists()


# Folders.


def test_two_audits_at_once_in_one_folder(world: Path, tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock"), pytest.raises(SpecError, match="no other audit is writing; got a locked one"):
        audit(feature_audit(world), tmp_path)
    assert not (tmp_path / FILE_NAME).exists()
    audit(feature_audit(world), tmp_path)


@pytest.mark.parametrize(
    ("values", "named"),
    [({"ridge": 0.5}, "ridge"), ({"probes": ["knn"]}, "probes"), ({"split": {"seed": 4}}, "split")],
    ids=str,
)
def test_the_folder_of_another_audit(values: dict[str, Any], named: str, world: Path, tmp_path: Path) -> None:
    audit(image_audit(world, attacks=["label-flip"]), tmp_path)
    content = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(SpecError, match=f"a new folder, or one of this audit; got an audit with another {named}"):
        audit(image_audit(world, attacks=["label-flip"], **values), tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == content


def test_features_after_images_are_another_audit(world: Path, tmp_path: Path) -> None:
    audit(image_audit(world, attacks=["label-flip"]), tmp_path)
    with pytest.raises(SpecError, match="an audit with another features"):
        audit(feature_audit(world), tmp_path)


def test_data_that_changed_under_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "world").mkdir()
    folder = make_world(tmp_path / "world")
    spec = image_audit(folder, attacks=["label-flip"])
    audit(spec, tmp_path / "out")
    arrays = dict(np.load(folder / "images.npz"))
    arrays["x_test"][0, 0, 0, 0] ^= 1
    np.savez(folder / "images.npz", **arrays)
    with pytest.raises(SpecError, match=r"trials on another test \(by content\)"):
        audit(spec, tmp_path / "out")


def test_code_that_changed_under_the_same_weights(tmp_path: Path) -> None:
    (tmp_path / "world").mkdir()
    folder = make_world(tmp_path / "world")
    spec = image_audit(folder, attacks=["label-flip"])
    audit(spec, tmp_path / "out")
    code = folder / "net.py"
    code.write_text(
        code.read_text().replace("torch.relu(self.bn(self.conv(x)))", "torch.tanh(3 * self.conv(x.flip(1)))")
    )
    with pytest.raises(SpecError, match=r"a clean twin that differs on [\d.]+% of the test rows with probe exact"):
        audit(spec, tmp_path / "out")


def test_a_damaged_record_is_not_written_over(world: Path, tmp_path: Path) -> None:
    audit(feature_audit(world), tmp_path)
    path = tmp_path / FILE_NAME
    path.write_text("not a record\n" + path.read_text())
    with pytest.raises(RecordError, match="line 1"):
        audit(feature_audit(world), tmp_path)
    assert path.read_text().startswith("not a record\n")


def test_a_place_that_is_no_folder(world: Path, tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.write_text("")
    for out in (taken, taken / "below"):
        with pytest.raises(SpecError, match=r"--out .*: a folder that can be written"):
            audit(feature_audit(world), out)


def test_bad_input_leaves_no_folder_behind_and_takes_none_away(world: Path, tmp_path: Path) -> None:
    for name, existed in (("new", False), ("old", True)):
        folder = tmp_path / name
        if existed:
            folder.mkdir()
        with pytest.raises(SpecError, match="data"):
            audit(image_audit(world, data="no-such-thing", attacks=["label-flip"]), folder)
        assert folder.exists() == existed


def test_the_resolved_audit_lies_beside_the_record(world: Path, tmp_path: Path) -> None:
    spec = image_audit(world, attacks=["label-flip"], precision="auto")
    audit(spec, tmp_path)
    kept = AuditSpec.read(tmp_path / SPEC_FILE)
    assert kept.precision == "float32"
    assert kept == spec.model_copy(update={"precision": kept.precision})
    assert not run(spec, tmp_path, Watched()).failures
    assert AuditSpec.read(tmp_path / SPEC_FILE) == kept


def test_a_folder_in_another_precision_is_continued_in_its_own(world: Path, tmp_path: Path) -> None:
    """Folders from when `auto` was the fastest precision name one that need not be float32."""
    spec = image_audit(world, attacks=["label-flip"], precision="bfloat16-channels-last")
    audit(spec, tmp_path)
    watched = Watched()
    run(spec.model_copy(update={"precision": "auto"}), tmp_path, watched)
    assert watched.counts == (2, 2) and watched.labels == []
    assert AuditSpec.read(tmp_path / SPEC_FILE).precision == "bfloat16-channels-last"


def test_records_are_valid_json_lines(world: Path, tmp_path: Path) -> None:
    records = audit(image_audit(world, attacks=["label-flip", f"{EXACT}:carrier=pixels", "weight-cheat"]), tmp_path)
    lines = (tmp_path / FILE_NAME).read_text().splitlines()
    assert [json.loads(line)["trial"] for line in lines] == [record.trial for record in records.records]
    assert [TrialRecord.model_validate_json(line) for line in lines] == records.records
