from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from foretaste import runtime
from foretaste.errors import SpecError
from foretaste.runtime import Runtime, digest_tensors, generator, make_runtime, stream, stream_seed, training_runtime


def test_streams_repeat_and_differ_by_name_and_by_seed() -> None:
    draws = {
        (seed, name): torch.rand(8, generator=stream(seed, name)).tolist()
        for seed in (0, 1)
        for name in ("attack", "probe")
    }
    assert draws[0, "attack"] == torch.rand(8, generator=stream(0, "attack")).tolist()
    assert len({tuple(values) for values in draws.values()}) == 4
    assert generator(3, "x").integers(10**9) == np.random.default_rng(stream_seed(3, "x")).integers(10**9)


def test_stream_seed_is_the_published_hash() -> None:
    digest = hashlib.sha256(b"7/attack").digest()
    assert stream_seed(7, "attack") == int.from_bytes(digest[:8], "big") // 2


def test_streams_leave_the_global_generators_alone() -> None:
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    torch.rand(3, generator=stream(0, "a"))
    generator(0, "a").random(3)
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


def test_digest_sees_names_shapes_types_and_every_bit() -> None:
    base = {"a": torch.arange(6.0).view(2, 3), "b": torch.zeros(2)}
    same = {"b": torch.zeros(2), "a": torch.arange(6.0).view(3, 2).T.contiguous().T.reshape(2, 3) * 0 + base["a"]}
    assert digest_tensors(base) == digest_tensors(same)
    flipped = base["a"].clone()
    flipped.view(torch.int32)[0, 0] ^= 1
    others = [
        {**base, "a": base["a"].view(3, 2)},
        {**base, "a": base["a"].double()},
        {"c": base["a"], "b": base["b"]},
        {**base, "a": flipped},
    ]
    assert len({digest_tensors(one) for one in [base, *others]}) == 5


def test_images_are_scaled_to_the_unit_range() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    assert Runtime().images(pixels).flatten().tolist() == pytest.approx([0.0, 0.2, 1.0])
    batch = Runtime(channels_last=True).images(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_autocast_only_where_asked_for() -> None:
    layer, x = torch.nn.Linear(4, 4), torch.ones(1, 4)
    with Runtime().autocast():
        assert layer(x).dtype == torch.float32
    with Runtime(precision="bfloat16").autocast():
        assert layer(x).dtype == torch.bfloat16


def test_unknown_device_and_precision_are_named() -> None:
    with pytest.raises(SpecError, match="abacus"):
        make_runtime("abacus")
    with pytest.raises(SpecError, match="float8"):
        training_runtime(Runtime(), "float8")


def test_training_precision_follows_the_processor_and_not_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_cpu_info", lambda key: "sse2 avx512_bf16 avx2" if key == "flags" else "")
    assert training_runtime(Runtime()).precision == "bfloat16"
    assert training_runtime(Runtime(), "float32").precision == "float32"
    monkeypatch.setattr(runtime, "_cpu_info", lambda key: "sse2 avx2" if key == "flags" else "")
    assert training_runtime(Runtime()).precision == "float32"
    assert training_runtime(Runtime(), "bfloat16").channels_last


def test_threads_are_bounded_by_the_cores_of_the_process() -> None:
    code = (
        "import os, torch; os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]});"
        "from foretaste.runtime import make_runtime; make_runtime('cpu'); print(torch.get_num_threads())"
    )
    if not hasattr(__import__("os"), "sched_setaffinity"):
        pytest.skip("this system cannot pin a process to a core")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "1"
