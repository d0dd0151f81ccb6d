"""`python -m benchmarks`: all of them, one after another."""

from benchmarks import engine

engine.main()
