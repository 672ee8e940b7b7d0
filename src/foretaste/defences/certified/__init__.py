"""Heads whose every prediction comes with the number of training rows that an attacker would have to change: votes on
hash partitions (`dpa`) and on random bags (`bagging`), of base learners on few rows (`subsample_heads`).
"""
