"""Filters: a suspicion score per training row of the head."""
