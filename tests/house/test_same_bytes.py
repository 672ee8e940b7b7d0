"""The same spec gives the same bytes, whatever the number of threads that the environment asks for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import json, sys
from pathlib import Path
import torch
from tests.safety import doors
folder = Path(sys.argv[1])
split = {"train": 0.5, "validation": 0.4, "clean": 0.1, "limit": 90}
attacks = ["exact:steps=2", "exact:carrier=pixels:steps=2", "pacl:steps=2:batch=16"]
values = {"attacks": attacks, "split": split, "budgets": [0.1], "seeds": 1, "targets": 1, "device": "cpu"}
before = torch.get_num_threads()
values["defences"] = ["activation:dimensions=3", "fine-tune:epochs=1:batch=8"]
doors.audit(doors.AuditSpec.make(values), folder)
assert torch.get_num_threads() == before, "the caller's threads are given back"
print(before)
"""


def outcome(folder: Path, threads: int) -> tuple[list[dict[str, object]], str]:
    """An audit in a process of its own; its trials less seconds and paths, and the threads that the process had."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    own = {**os.environ, **dict.fromkeys(names, str(threads)), "FORETASTE_CACHE": f"{folder}-cache", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", PROGRAM, folder], env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    trials = [json.loads(line) for line in (folder / "record.jsonl").read_text().splitlines()]
    for trial in trials:
        assert trial["status"] == "ok", trial["error"]
        del trial["seconds"], trial["command"]
    return trials, done.stdout.strip()


@pytest.mark.timeout(600)
def test_threads_and_a_busy_machine_change_no_byte(tmp_path: Path) -> None:
    one, had_one = outcome(tmp_path / "one", 1)
    # The second while something else is at work on every core.
    loop = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"  # ends with this process
    others = [subprocess.Popen([sys.executable, "-c", loop]) for _ in range(os.cpu_count() or 1)]
    try:
        two, had_two = outcome(tmp_path / "two", 2)
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert (had_one, had_two) == ("1", "2"), "the environment was heard, and made no difference"
    assert {trial["machine"]["threads"] for trial in [*one, *two]} == {"1"}
    assert one == two
