"""Heads whose every prediction comes with the number of training rows that an attacker would have to change."""
