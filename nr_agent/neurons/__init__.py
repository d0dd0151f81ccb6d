"""Where a model's channels are, the tap that reads them, and which of them tell of failures."""
