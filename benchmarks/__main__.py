"""`python -m benchmarks`: those that need nothing but a model, one after another."""

from benchmarks import engine, long_episode

engine.main([])
long_episode.main(["--model", "nano", "--tokens", "2000"])
