"""The command line: one module a noun."""

from nr_agent.cli.main import main

__all__ = ["main"]
