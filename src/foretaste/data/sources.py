"""The named sources, as a table. No torch here: the command line lists them."""

from __future__ import annotations

SOURCES: dict[str, str] = {
    "digits": "scikit-learn's handwritten digits, 8x8, 1,797 rows; embedded, no file needed",
    "cifar10": "CIFAR-10, 32x32, 10 classes; DIR/cifar-10-batches-py (--data-dir DIR)",
    "cifar100": "CIFAR-100, 32x32, 100 fine classes; DIR/cifar-100-python",
    "stl10": "STL-10, 96x96, 10 classes; DIR/stl10_binary",
    "svhn": "SVHN cropped digits, 32x32; DIR/train_32x32.mat and DIR/test_32x32.mat",
    "gtsrb": "German traffic signs, 43 classes, resized to 32x32; DIR/gtsrb",
    "mnist": "MNIST, 28x28; DIR/MNIST/raw",
    "usps": "USPS, 16x16; DIR/usps.bz2 and DIR/usps.t.bz2",
    "pacs": "PACS, 7 classes, all domains together; DIR/pacs/<domain>/<class>/*.jpg, no download",
}
"""Name on the command line -> one line of description."""
