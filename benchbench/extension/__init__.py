"""How plugins are written, found, built and checked."""
