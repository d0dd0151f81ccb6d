"""A reasoner as a LangChain chat model: the answer as content, the thoughts as reasoning."""

from __future__ import annotations

import asyncio
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams, LanguageModelInput
from langchain_core.language_models.chat_models import (
    BaseChatModel,
    agenerate_from_stream,
    generate_from_stream,
)
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field, PrivateAttr, field_validator, model_validator

from nr_agent.errors import ToolsUnsupportedError
from nr_agent.graphs.apart import astream_apart, find_writer, stream_apart
from nr_agent.graphs.budget import Budget
from nr_agent.graphs.checking import check_engine
from nr_agent.graphs.chunks import Chunks
from nr_agent.graphs.conversation import to_template
from nr_agent.graphs.loaded import Loaded, User
from nr_agent.graphs.options import DRAWN, Options, read_choice
from nr_agent.graphs.parts import Parts
from nr_agent.graphs.ready import Reasoner
from nr_agent.graphs.reasoner import create_reasoner, nodes_of, parts_of
from nr_agent.graphs.replies import lead
from nr_agent.graphs.threads import to_its_end


class ChatNeuReasoner(BaseChatModel):
    """A watched and corrected reasoning model, as a chat model.

    ```python
    from nr_agent import ChatNeuReasoner

    chat = ChatNeuReasoner(model="nano")
    print(chat.invoke("Solve for x: 12*x + 7 = 91").content)
    ```

    The model and its detector are loaded when they are first needed. Every run is an episode of its own; in another
    graph's node its events go to that graph's custom stream. Where a person is to be asked, use the reasoner itself.

    Attributes:
        model: name or folder of a model, unless there is an engine (whose name it has then) or a reasoner.
        engine: thinks, instead of a model that is loaded.
        reasoner: of `create_reasoner`: brings everything that follows up to `mode`.
        detector: watches; `auto` is the model's own.
        policies: decide on failure events: a pack's name, a file, or policies by level or kind.
        store: keeps the episodes; without one they are forgotten once the message is there.
        budget: what an episode may cost.
        control: whether events are acted upon.
        mode: how remedies are spoken; see `create_reasoner`.
        temperature: of the sampling; the reasoner's by default.
        top_p: likewise.
        top_k: likewise.
        seed: of the sampling: the same seed gives the same message. None draws one for every run.
        max_tokens: most tokens of thinking and answer together, and of what closes the thinking; the answer gets up to
            a quarter of them. Too few for that are refused when the model is called.
        timeout: seconds after which the thinking is closed and the answer asked for.
        stop: strings that end the answer.
        max_retries: taken for compatibility; there is no connection that could fail.
        api_key: likewise; there is nobody to show it to.
        streaming: stream always, also when invoked.
        loaded: the engines that were loaded by name; a copy shares them.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    model: str = "nano"
    engine: Any = Field(default=None, exclude=True, repr=False)
    reasoner: Any = Field(default=None, exclude=True, repr=False)
    detector: Any = Field(default="auto", exclude=True, repr=False)
    policies: Any = Field(default="default", exclude=True, repr=False)
    store: Any = Field(default=None, exclude=True, repr=False)
    budget: Budget = Budget(max_answer_tokens=512)
    control: bool = True
    mode: Literal["auto", "token", "prompted"] = "auto"
    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    seed: int | None = 0
    max_tokens: int | None = Field(default=None, ge=1)
    timeout: float | None = Field(default=None, gt=0)
    stop: list[str] = Field(default_factory=list)
    max_retries: int | None = None
    api_key: Any = Field(default=None, exclude=True, repr=False)
    streaming: bool = False

    # A field, so that the model that LangChain makes of `configurable_fields` for a call has it, too.
    loaded: Loaded = Field(default_factory=Loaded, exclude=True, repr=False)

    _lock: Any = PrivateAttr(default_factory=threading.RLock)
    _made: Any = PrivateAttr(default=None)  # what the reasoner was made of, and it
    _user: User = PrivateAttr(default_factory=User)

    def __copy__(self) -> Self:
        """A copy thinks with the engine that is loaded already, and makes a reasoner of its own when it differs."""
        copied = super().__copy__()
        copied._lock, copied._user = threading.RLock(), User()
        return copied

    def bind_tools(
        self,
        tools: Sequence[Mapping[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: Mapping[str, Any] | str | bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer tools to the model.

        Args:
            tools: functions, schemas, models or tools.
            tool_choice: `auto`; `any` makes it call one; a name makes it call that one; `none` hides them.
            kwargs: as in `bind`.

        Raises:
            ToolsUnsupportedError: the model's chat template knows no tools, or there is no such tool.
        """
        self._check_takes_tools()
        offered = [convert_to_openai_tool(tool) for tool in tools]
        chosen = read_choice(tool_choice)
        lead(offered, None if chosen == "none" else chosen)
        return self.bind(tools=offered, tool_choice=chosen, **kwargs)

    def get_token_ids(self, text: str) -> list[int]:
        """Ids of a text."""
        return self._parts().engine.codec.encode(text)

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Tokens of a conversation as the model reads it."""
        codec = self._parts().engine.codec
        turns = to_template(messages, calls=codec.takes_tools)
        offered = [convert_to_openai_tool(tool) for tool in tools or ()]
        return len(codec.render(turns, offered) if offered else codec.render(turns))

    def close(self) -> None:
        """Shut down what was loaded here or by a copy and is used by none of them; the next run loads it anew."""
        with self._lock:
            self._made = None
            self.loaded.release(self._user)

    @field_validator("stop", mode="before")
    @classmethod
    def _may_be_one(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value or []

    @field_validator("engine")
    @classmethod
    def _is_one(cls, value: Any) -> Any:
        if value is not None:
            check_engine(value, hint="give load_engine(...), or a model's name or folder as model=...")
        return value

    @model_validator(mode="after")
    def _is_named_after_its_engine(self) -> Self:
        if self.engine is not None and "model" not in self.model_fields_set:
            self.model = self.engine.name
        return self

    @property
    def _llm_type(self) -> str:
        return "nr-agent"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """What an answer depends on: LangChain's cache is asked by it."""
        given = self.engine or (parts_of(self.reasoner).engine if self.reasoner is not None else None)
        names = ("control", "mode", *DRAWN, "seed", "max_tokens", "timeout", "stop")
        return {
            "model": self.model if given is None else f"{given.name}:{given.fingerprint}",
            "detector": getattr(self.detector, "id", self.detector),
            "policies": str(self.policies),
            "reasoner": None if self.reasoner is None else id(self.reasoner),
            "budget": self.budget.model_dump(mode="json"),
            **{name: getattr(self, name) for name in names},
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or self.stop or None, **kwargs)
        params["ls_provider"] = "nr_agent"
        return params

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return generate_from_stream(self._stream(messages, stop, run_manager, **kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await agenerate_from_stream(self._astream(messages, stop, run_manager, **kwargs))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        write = find_writer()
        reasoner = self._reasoner()
        chunks, config = self._begin(parts_of(reasoner), stop, kwargs)
        try:
            for event in stream_apart(reasoner, {"messages": messages}, config):
                write(event)
                for chunk in chunks.take(event):
                    yield ChatGenerationChunk(message=chunk)
            chunks.check()
        finally:
            self._end(chunks)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        write = find_writer()
        reasoner = await asyncio.to_thread(self._reasoner)
        chunks, config = self._begin(parts_of(reasoner), stop, kwargs)
        events = astream_apart(reasoner, {"messages": messages}, config)
        try:
            async for event in events:
                write(event)
                # At its end the episode is read from the store, which may let us wait.
                for chunk in await asyncio.to_thread(chunks.take, event):
                    yield ChatGenerationChunk(message=chunk)
            chunks.check()
        finally:
            await events.aclose()
            await to_its_end(self._end, chunks)

    def _begin(self, parts: Parts, stop: list[str] | None, call: dict[str, Any]) -> tuple[Chunks, RunnableConfig]:
        """What becomes of the events, and what the run is told."""
        own = {name: getattr(self, name) for name in ("model", "seed", "max_tokens", "timeout", "stop", *DRAWN)}
        options = Options(own, call if stop is None else {**call, "stop": stop})
        begun = parts.engine.codec.encode(lead(options.tools, options.choice))
        between = len(parts.remedies.closing(boundary=False)) + len(begun)  # where the thinking is cut within a step
        told = {
            "seed": options.seed,
            "sampling": options.sampling,
            "budget": options.budget(self._usual(), between),
            "stop": options.stop,
            "tools": options.tools,
            "tool_choice": options.choice,
        }
        # A thread of its own, should the reasoner have a checkpointer.
        config: RunnableConfig = {"configurable": {"nr_agent": told, "thread_id": str(uuid.uuid4())}}
        return Chunks(parts, stop=options.stop, tools=bool(options.tools)), config

    def _end(self, chunks: Chunks) -> None:
        """Leave nothing behind: of an episode that was not heard to the end, and of one that nobody keeps."""
        if chunks.episode_id is None:
            return
        if not chunks.ended:
            chunks.parts.leave(chunks.episode_id)
        if self.store is None and self.reasoner is None:
            chunks.parts.store.delete([chunks.episode_id])

    def _usual(self) -> Budget:
        """What an episode may cost whatever is asked for."""
        if self.reasoner is None:
            return self.budget.model_copy(update={"max_tokens": sys.maxsize})
        usual: Budget = nodes_of(self.reasoner)["open"].budget
        return usual

    def _parts(self) -> Parts:
        return parts_of(self._reasoner())

    def _reasoner(self) -> Reasoner:
        if self.reasoner is not None:
            given: Reasoner = self.reasoner
            return given
        others = {name: getattr(self, name) for name in ("detector", "policies", "store", "budget", "mode", "control")}
        with self._lock:
            if self._thinks_otherwise():
                self.loaded.release(self._user)
            engine = self.loaded.engine(self.model, self._user) if self.engine is None else self.engine
            if self._made is None or self._made[1] is not engine or self._made[2] != others:
                self._made = self.model, engine, others, create_reasoner(engine, **others)
            made: Reasoner = self._made[3]
            return made

    def _thinks_otherwise(self) -> bool:
        """Whether another model, or an engine, was assigned since the reasoner was made."""
        return self._made is not None and (self._made[0] != self.model or self.engine not in (None, self._made[1]))

    def _called(self) -> str:
        """The model's name, also where it came with an engine or a reasoner."""
        return self._parts().engine.name if self.engine is not None or self.reasoner is not None else self.model

    def _check_takes_tools(self) -> None:
        """Say early that a model knows no tools; its template's file says so, without its weights."""
        if self.engine is not None or self.reasoner is not None or self._made is not None:
            takes = self._parts().engine.codec.takes_tools
        else:
            from nr_agent.engine.prompts import takes_tools  # noqa: PLC0415 - imports transformers
            from nr_agent.models.registry import read_templates  # noqa: PLC0415 - beside its use

            takes = any(takes_tools(template) for template in read_templates(self.model))
        if not takes:
            raise ToolsUnsupportedError(
                f"the chat template of {self._called()} knows no tools",
                hint="use a checkpoint whose chat template presents tools, such as Qwen3's",
            )
