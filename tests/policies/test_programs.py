"""Which Python stands in a step: whole fenced blocks, wherever they began."""

import pytest

from nr_agent.policies.sandbox import programs


@pytest.mark.parametrize(
    ("before", "text", "program"),
    [
        ("", "```python\nprint(1)\n```\n", "print(1)\n"),
        ("", "```\nprint(1)\n```\nand\n```py\nprint(2)\n```", "print(1)\n\nprint(2)\n"),
        ("", "```python3\nprint(1)\n```", "print(1)\n"),
        ("", "```bash\npip install x\n```\nThen run:\n```python\nprint(1)\n```\n", "print(1)\n"),
        ("```python\ndef f():\n\n", "    return 1\n```\nNow test it:\n```python\nassert f()\n```\n",
         "def f():\n\n    return 1\n\nassert f()\n"),
        ("```python\ndone = 1\n```\n", "```python\nprint(1)\n```\n", "print(1)\n"),
        ("", "```python\nnever closed", ""),
        ("", "no program", ""),
    ],
)  # fmt: skip
def test_blocks_that_end_in_the_step_are_its_program(before, text, program):
    assert programs(text, before) == program
