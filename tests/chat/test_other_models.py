"""What other models said is read, as far as it is text."""

from __future__ import annotations

import pytest
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
    ToolMessage,
)

from nr_agent.errors import ProblemError
from nr_agent.graphs.conversation import to_template


@pytest.mark.parametrize("kind", ["function_call", "refusal", "redacted_thinking", "server_tool_call"])
def test_what_another_model_thought_called_or_refused_is_left_out(kind):
    block = {"type": kind, "data": "secret"}
    asked, said = HumanMessage("2+2?"), AIMessage([block, {"type": "text", "text": "four"}])
    assert to_template([asked, said])[1:] == [{"role": "assistant", "content": "four"}]
    assert len(to_template([asked, AIMessage([block])])) == 1  # nothing was said
    # In what people and tools say it would be lost.
    for message in (HumanMessage([block]), ToolMessage([block], tool_call_id="1")):
        with pytest.raises(ProblemError, match=f"{kind!r}, and this model reads text only"):
            to_template([asked, message])


@pytest.mark.parametrize("kind", ["image", "image_url", "input_audio", "file"])
def test_what_another_model_made_for_people_is_refused(kind):
    with pytest.raises(ProblemError, match=f"{kind!r}, and this model reads text only"):
        to_template([HumanMessage("2+2?"), AIMessage([{"type": "text", "text": "four"}, {"type": kind}])])
