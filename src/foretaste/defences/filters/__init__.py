"""Filters: a suspicion score per training row of the head, higher for more suspicious. Each is one file with one verb,
`score`; where to cut is the referee's to say.
"""
