"""Frozen features, and what is read off them."""
