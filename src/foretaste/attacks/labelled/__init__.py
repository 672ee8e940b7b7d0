"""Attacks on the accuracy through labelled rows of the head's training data (threat `labelled`): wrong labels, the
exact Stackelberg attack, gradient canceling and its feature-targeted form, TGDA, and error-minimising noise. Each is
one file; what they are made of is in `optimise`.
"""
