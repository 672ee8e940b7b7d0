"""Clean encoders for `foretaste scan --null`: what honest further training makes of an encoder.

    python -m scripts.clean_encoders --encoder resnet18-small --weights E.safetensors --data D.npz --out clean

Each encoder goes on learning by SimCLR from the training rows, with its own seed and its own number of epochs, rate and
share of the images, so that the folder spans what an owner might do. 19 encoders can show a false-alarm rate of 1/20.
A folder that is not complete is completed; the same arguments give the same files.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import torch

from foretaste.data import SplitSpec, load, whole
from foretaste.encoders.build import build
from foretaste.encoders.spec import EncoderSpec
from foretaste.encoders.weights import save_encoder
from foretaste.errors import SpecError
from foretaste.pretrain import find
from foretaste.pretrain.continued import continued
from foretaste.runtime import make_runtime, stream, training_runtime

RATES = (0.003, 0.01, 0.03)


def main(words: list[str] | None = None) -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--encoder", required=True, help="where to start, see foretaste list")
    flags.add_argument("--weights", type=Path, help="checkpoint for it")
    flags.add_argument("--width", type=int, help="of resnet18-small")
    flags.add_argument("--data", required=True, help="clean images; labels are not used")
    flags.add_argument("--out", type=Path, required=True, help="folder for clean-000.safetensors and so on")
    flags.add_argument("--count", type=int, default=19, help="how many encoders")
    flags.add_argument("--epochs", default="1,2,4", help="numbers of epochs, taken in turn")
    flags.add_argument("--share", type=float, default=0.5, help="of the training rows, drawn anew for each encoder")
    flags.add_argument("--batch", type=int, default=256, help="images per step")
    flags.add_argument("--seed", type=int, default=0, help="of the first encoder; the others follow")
    flags.add_argument("--limit", type=int, help="most rows of the data")
    flags.add_argument("--device", default="auto", help="auto, cpu or cuda")
    asked = flags.parse_args(words)
    epochs = [int(part) for part in asked.epochs.split(",")]
    if asked.count < 1 or min(epochs) < 1 or not 0 < asked.share <= 1:
        raise SpecError("--count and --epochs at least 1, --share in (0, 1]", got=str(vars(asked)))
    images, _ = whole(load(asked.data), SplitSpec(limit=asked.limit))
    sample = (images.pixels.shape[2], images.pixels.shape[3])
    start = build(EncoderSpec(reference=asked.encoder, weights=asked.weights, width=asked.width), sample)
    runtime = training_runtime(make_runtime(asked.device))
    asked.out.mkdir(parents=True, exist_ok=True)
    settings = itertools.cycle(itertools.product(epochs, RATES))
    for index, (passes, rate) in zip(range(asked.count), settings, strict=False):
        path = asked.out / f"clean-{index:03d}.safetensors"
        if path.exists():
            continue
        seed = asked.seed + index
        order = torch.randperm(len(images), generator=stream(seed, "null/rows"))
        rows = order[: max(2, round(asked.share * len(images)))]
        method = find("simclr")(epochs=passes, lr=rate, batch=asked.batch, warmup=0.0)
        encoder = continued(start, images.take(rows), method, seed, runtime)
        save_encoder(path, encoder.body.state_dict(), encoder.card)
        print(f"wrote {path.name}: {passes} epochs at {rate:g}, seed {seed}")


if __name__ == "__main__":
    main()
