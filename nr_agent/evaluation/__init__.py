"""Arms on the same problems, metrics, and reports."""
