"""Encoders: what `--encoder` accepts, how it is built, and how weights are read and written.

Nothing here imports torch: `build.build`, `weights.read_state_dict` and `weights.save_encoder` are imported from their
own modules where they are used.
"""

from __future__ import annotations

ARCHITECTURES: dict[str, str] = {
    "digits-simclr": "the embedded encoder: SimCLR on scikit-learn's digits, under 1 MB",
    "resnet18-small": "ResNet-18 with a 3x3 stem and no max-pool, at any --width",
    "timm:NAME": "any timm model, without its classifier, with its own mean, std and input size",
    "package.module:callable": "your own code: a callable without arguments that returns an nn.Module",
    "file.py:callable": "the same, from a file",
    "FILE.safetensors": "an encoder that Foretaste wrote",
}
"""Reference -> one line for `foretaste list`."""
