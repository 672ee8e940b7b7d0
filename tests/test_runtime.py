from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from foretaste import runtime
from foretaste.errors import SpecError
from foretaste.runtime import (
    Runtime,
    digest_tensors,
    fixed_threads,
    generator,
    make_runtime,
    plain_runtime,
    stream,
    stream_seed,
    training_runtime,
)


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


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_auto_is_float32_whatever_the_machine_is_good_at(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_cpu_info", lambda key: "amx_bf16 avx512_bf16")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    for given in (Runtime(device), Runtime(device, "bfloat16", channels_last=True)):
        chosen = plain_runtime(given)
        assert (chosen.device, chosen.precision, chosen.channels_last) == (device, "float32", False)
        assert "float32" in chosen.reason


def test_threads_are_fixed_unless_asked_for_and_given_back() -> None:
    """In a process of its own: two threads from the environment, one while it counts, a choice where there is one."""
    code = (
        "import torch; from threadpoolctl import threadpool_info as info;"
        "from foretaste.runtime import fixed_threads, machine, make_runtime;"
        "now = lambda: (torch.get_num_threads(), {pool['num_threads'] for pool in info()});"
        "first = now();\n"
        "with fixed_threads(): inside = now(); told = machine()['threads']\n"
        "after = torch.get_num_threads(); make_runtime('cpu'); default = now(); make_runtime('cpu', 3);"
        "print(first, inside, told, after, default, now(), machine()['threads'])"
    )
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    own = {**os.environ, **dict.fromkeys(names, "2")}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=own)
    assert found.stdout.strip() == "(2, {2}) (1, {1}) 1 2 (2, {2}) (3, {3}) 3"


def test_threads_are_given_back_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="in the block"), fixed_threads():
        raise ValueError("in the block")
    assert torch.get_num_threads() == before
