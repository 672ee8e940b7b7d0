"""Memory of a fit, as the system sees it."""

from __future__ import annotations

from tests.memory_fixture import MARKS, run

pytestmark = MARKS


def test_a_fit_needs_probabilities_and_a_few_chunks_beside_its_rows() -> None:
    before, after, ratio = run("""
fit_head(*data(5000, 64, 10), 10)  # libraries and their buffers
z, y = data(200_000, 64, 10)
before = peak()
head = fit_head(z, y, 10, overwrite=True)
print(before, peak(), head.gradient_ratio)
""")
    assert ratio <= 1e-6
    assert after - before < 200_000 * 10 * 4 + 48 * 2**20


def test_a_million_rows_of_512_features_fit_in_4_gib() -> None:
    most, ratio, accuracy = run("""
z, y = data(1_000_000, 512, 10)
head = fit_head(z, y, 10, tolerance=1e-3, overwrite=True)
new, labels = data(10_000, 512, 10)
print(peak(), head.gradient_ratio, float((head.predict(new) == labels).float().mean()))
""")
    assert ratio <= 1e-3
    assert accuracy > 0.3
    assert most < 4 * 2**30
