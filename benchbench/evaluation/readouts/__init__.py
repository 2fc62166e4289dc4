"""Readouts: how predictions are read off frozen features."""
