"""What a detector and its traces were made with, as short names: equal only where that is equal."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest(value: Any) -> str:
    """SHA-256 of JSON values, in hex; what JSON does not know goes in as its text."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def tokenizer_hash(tokenizer: Any) -> str:
    """The digest of a tokenizer's vocabulary, added tokens included: which id is which text."""
    return digest(sorted(tokenizer.get_vocab().items()))
