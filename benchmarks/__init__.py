"""Promised ratios, measured side by side on the machine at hand: `python -m benchmarks`."""
