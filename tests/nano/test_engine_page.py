"""The engine's page: its code is this file's code, run on the embedded LRM."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "engine.md"

(code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
exec(compile(code, str(PAGE), "exec"))  # noqa: S102 - it is our own page
