"""Attacks by labelled rows that give one chosen image one chosen class."""
