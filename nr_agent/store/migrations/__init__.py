"""Alembic's migrations of the episode store."""
