"""The command line: the only part that prints and exits."""

from ticketbench.cli.app import main

__all__ = ["main"]
