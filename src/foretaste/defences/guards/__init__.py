"""Guards: a suspicion score per input at use time."""
