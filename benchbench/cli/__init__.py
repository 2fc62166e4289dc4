"""The command line: parsing and printing, nothing else. What is heavy is imported by commands."""

from benchbench.cli.main import main

__all__ = ["main"]
