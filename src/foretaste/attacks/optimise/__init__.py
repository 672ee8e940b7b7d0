"""What attacks on labelled rows are made of: what is moved (features, pixels, a generator) and inside which set, the
projected ascent, the objectives that it follows, and the ways from features back to images. The attacks themselves are
in `labelled` and `targeted`.
"""
