"""Data sets and generators that two papers or more use."""
