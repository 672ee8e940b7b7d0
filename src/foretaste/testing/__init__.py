"""Checks that a method from outside keeps the promises of its kind."""
