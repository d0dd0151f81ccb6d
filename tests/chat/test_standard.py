"""LangChain's own suites for chat models.

Expected of the embedded LRM, and not more: its template knows no tools, so what needs tools is left out there and
runs on a scripted engine with such a template; it reads text only; it is not serialisable, as it holds an engine;
it speaks to no server, so there are no HTTP calls to record and no keys in the environment; one chat model is one
model, so a call cannot name another.
"""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage

from nr_agent import Budget, ChatNeuReasoner

pytest.importorskip("langchain_tests", reason="pip install --no-deps langchain-tests")
from chat_helpers import tool_engine
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:.*(v3|stream_events).*:langchain_core._api.LangChainBetaWarning"),
]


class OfOurs:
    """What holds for every model of ours."""

    @property
    def chat_model_class(self):
        return ChatNeuReasoner

    @property
    def supports_model_override(self) -> bool:
        return False


class OfNano(OfOurs):
    """The embedded LRM with its real weights and its detector, loaded by the constructor's own way."""

    engine: Any = None
    detector: Any = None

    @pytest.fixture(autouse=True)
    def _loaded(self, nano, nano_detector):
        self.engine, self.detector = nano, nano_detector

    @property
    def chat_model_params(self) -> dict[str, Any]:
        # Loaded once for all tests: every instance would load its own.
        return {"engine": self.engine, "detector": self.detector, "budget": Budget(max_tokens=200)}

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return False

    @property
    def has_tool_choice(self) -> bool:
        return False


class OfTools(OfOurs):
    """A scripted model whose template knows tools."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"engine": tool_engine()}

    @property
    def has_tool_calling(self) -> bool:
        return True

    @property
    def has_structured_output(self) -> bool:
        return True

    @property
    def has_tool_choice(self) -> bool:
        return True


class TestNanoUnit(OfNano, ChatModelUnitTests):
    pass


class TestToolsUnit(OfTools, ChatModelUnitTests):
    pass


class Reasoning:
    @property
    def supported_usage_metadata_details(self):
        return {"invoke": ["reasoning_output"], "stream": ["reasoning_output"]}

    def invoke_with_reasoning_output(self, *, stream: bool = False) -> AIMessage:
        model = self.chat_model_class(**self.chat_model_params)
        question = "Solve for x: 12*x + 7 = 91"
        if not stream:
            return model.invoke(question)
        chunks = list(model.stream(question))
        return sum(chunks[1:], start=chunks[0])


class TestNanoIntegration(OfNano, Reasoning, ChatModelIntegrationTests):
    pass


class TestToolsIntegration(OfTools, Reasoning, ChatModelIntegrationTests):
    pass
