"""The embedded LRM, and the registry of the models that can be named."""
