"""The one module that knows devices, dtypes, threads, randomness and the machine."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from foretaste.errors import SpecError
from foretaste.version import __version__

THREADS = 1
"""Threads that an audit or an attack computes with, whatever the machine has.

Gradients through convolutions, sums over rows in the head and products in numpy are added up in another order by
another number of threads, and so have other bits, which an attack's steps carry on. With a fixed number the same spec
gives the same bytes on 1 core and on 64. It is one, since threads that outnumber the free cores wait for each other,
and most steps here are small; several audits side by side use several cores.
"""


@dataclass(frozen=True)
class Runtime:
    """Where and how tensors are computed.

    Attributes:
        device: `cpu`, `cuda` or `mps`.
        precision: `float32`, or `bfloat16` for autocast inside the encoder; features leave it as float32.
        channels_last: memory format of image batches and convolution weights.
        reason: why this precision was chosen; goes into the record.
    """

    device: str = "cpu"
    precision: str = "float32"
    channels_last: bool = False
    reason: str = "default"

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Mixed precision for the encoder's forward pass, if this runtime has it."""
        kind = torch.device(self.device).type
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"):
            yield

    def images(self, pixels: Tensor) -> Tensor:
        """Uint8 [B, 3, H, W] to float32 in [0, 1] on the device, in this runtime's memory format."""
        return self.layout(pixels.to(self.device, non_blocking=True).float().div_(255))

    def layout(self, maps: Tensor) -> Tensor:
        """Images or feature maps [B, C, H, W] in this runtime's memory format; other shapes as they are."""
        wanted = self.channels_last and maps.ndim == 4
        return maps.contiguous(memory_format=torch.channels_last) if wanted else maps


def make_runtime(device: str = "auto", threads: int | None = None) -> Runtime:
    """Pick the device, and bound the threads of this process where that is asked for.

    Args:
        device: `auto` (cuda where there is one, else cpu) or a torch device.
        threads: of torch and of the libraries behind numpy, for the whole process; None: as they are, see
            `fixed_threads`.

    Raises:
        SpecError: the device is unknown or not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        lines = str(error).splitlines()
        raise SpecError(
            "device: auto, cpu, cuda or mps", got=f"{device!r} ({lines[0] if lines else error!r})"
        ) from None
    if threads is not None:
        _set_threads(threads)
    return Runtime(device=device)


@contextmanager
def fixed_threads() -> Iterator[None]:
    """`THREADS` threads for the block, whatever the environment or the caller's program says; theirs again after it."""
    before, pools = torch.get_num_threads(), _set_threads(THREADS)
    try:
        yield
    finally:
        pools.restore_original_limits()
        torch.set_num_threads(before)


def _set_threads(threads: int) -> threadpool_limits:
    # A library that is loaded later would start with its own number: these two bring all that the house uses.
    import scipy.linalg  # noqa: F401
    import sklearn.cluster  # noqa: F401

    pools = threadpool_limits(threads)
    torch.set_num_threads(threads)
    return pools


def plain_runtime(runtime: Runtime) -> Runtime:
    """The runtime of precision `auto`: float32 on every device, so that one spec is one trial on every machine."""
    return replace(runtime, precision="float32", channels_last=False, reason="float32, as everywhere unless asked for")


def training_runtime(runtime: Runtime, precision: str = "auto") -> Runtime:
    """The runtime to train in: bfloat16 with channels_last where the processor computes in bfloat16.

    Decided by what the processor has and not by a timing, so that a resumed run decides alike.

    Args:
        runtime: device to train on.
        precision: auto, float32 or bfloat16.

    Raises:
        SpecError: another precision.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise SpecError("precision: auto, float32 or bfloat16", got=repr(precision))
    found = _bfloat16_unit(runtime.device)
    if precision == "bfloat16" or (precision == "auto" and found):
        reason = "asked for" if precision == "bfloat16" else f"the processor has {found}"
        return replace(runtime, precision="bfloat16", channels_last=True, reason=reason)
    reason = "asked for" if precision == "float32" else "the processor does not compute in bfloat16"
    return replace(runtime, precision="float32", reason=reason)


def _bfloat16_unit(device: str) -> str:
    if torch.device(device).type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else ""
    flags = _cpu_info("flags").split()
    return next((flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags), "")


def usable_cores() -> int:
    """Cores that this process may run on: two jobs with more threads than cores slow each other many times."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_threads() -> int:
    """The cores that this process may use, or $OMP_NUM_THREADS if that is fewer: who shares a machine sets it."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(usable_cores(), int(asked)) if asked.isdecimal() and int(asked) else usable_cores()


def stream_seed(seed: int, name: str) -> int:
    """A 63-bit seed for the named stream: streams of one seed are independent, and adding one moves no other."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") >> 1


def stream(seed: int, name: str) -> torch.Generator:
    """A named torch stream on the CPU, e.g. `stream(0, "attack")`; draw there and move the result."""
    return torch.Generator().manual_seed(stream_seed(seed, name))


def generator(seed: int, name: str) -> np.random.Generator:
    """A named numpy stream."""
    return np.random.default_rng(stream_seed(seed, name))


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, dtypes, shapes and bytes, in the order of the names."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def cache_folder() -> Path:
    """Where features are kept: $FORETASTE_CACHE, or foretaste/ in the user's cache folder."""
    if chosen := os.environ.get("FORETASTE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "foretaste"


def machine() -> dict[str, str]:
    """What the record says about the machine, and how many of its threads are computing."""
    return {**_machine(), "threads": str(torch.get_num_threads())}


@lru_cache
def _machine() -> dict[str, str]:
    facts = {"system": platform.system(), "cpu": _cpu_name(), "cores": str(usable_cores())}
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


@lru_cache
def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    found = {"python": platform.python_version(), "foretaste": __version__}
    for package in ("torch", "timm", "numpy", "scikit-learn"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _cpu_name() -> str:
    return _cpu_info("model name") or platform.processor() or platform.machine()


def _cpu_info(key: str) -> str:
    """A line of Linux's /proc/cpuinfo; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
