"""Engines: what thinks, step by step."""
