"""What the defender's methods make of a victim: one evaluator per kind of defence.

Each is a function of a victim, called on the one that nobody attacked (the baseline) and on the attacked one.
"""
