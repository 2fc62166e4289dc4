"""What to run: suites, and the cells that they mean."""
