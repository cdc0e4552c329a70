"""Choosing and making training data."""
