"""The tokens that the controller and the model share, and the text around them.

Correction tokens are real added tokens. The controller inserts their *ids*; text that merely looks
like one (in a problem, say) never becomes one.
"""

from __future__ import annotations

from typing import Final

THINK: Final = "<think>"
END_THINK: Final = "</think>"
RECHECK: Final = "<|recheck|>"
BRANCH: Final = "<|branch|>"
CORRECTION_TOKENS: Final = (RECHECK, BRANCH)

REDO: Final = "Let me redo that: "
"""Begins a second look at the step before it; inserted with `<|recheck|>` where that step stays."""

IN_DETAIL: Final = "In detail: "
"""Begins a step that is worked out at length; inserted with `<|recheck|>` where a step was taken back."""

OTHER_WAY: Final = "Let me try another way."
"""Begins what follows `<|branch|>`."""

TURN_START: Final = "<|im_start|>"
TURN_END: Final = "<|im_end|>"
END_OF_TEXT: Final = "<|endoftext|>"

TOOL_CALL: Final = "<tool_call>"
END_TOOL_CALL: Final = "</tool_call>"
"""Around a call of a tool, as Hermes and Qwen write it: a JSON object with `name` and `arguments`."""

STEP_END: Final = "\n\n"
"""A blank line ends a step."""

CLOSING_SENTENCE: Final = "Okay, I have finished thinking."
"""Closes the thinking when a policy stops it. After NeuReasoner and NoThinking (arXiv 2504.09858)."""

ANSWER_LEAD: Final = "The final answer is \\boxed{"
"""How an answer begins: the embedded LRM's form, and the probe for trial answers on any model."""

CHAT_TEMPLATE: Final = (
    "{%- for message in messages -%}"
    "{%- set content = message['content'] -%}"
    "{%- if message['role'] == 'assistant' and '</think>' in content -%}"
    "{%- set content = content.split('</think>')[-1].lstrip('\\n') -%}"
    "{%- endif -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + content + '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n<think>\\n' -}}{%- endif -%}"
)
"""The embedded LRM's chat template: earlier thoughts are dropped, the thinking is opened."""
