"""What can go wrong, as types. Each error says what, where, and what to do about it."""

from __future__ import annotations

from typing import Any


class NRAgentError(RuntimeError):
    """Base of every error that this library raises on purpose.

    A `RuntimeError`, as trying again does not help: LangGraph's usual retry policy lets those go, and its server tells
    their text.

    Args:
        message: what went wrong, and where.
        hint: what to do about it, as an imperative; shown on its own line.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class ConfigurationError(NRAgentError):
    """Parts that do not fit together, or a setting without sense."""

    exit_code = 2


class OtherModelError(ConfigurationError):
    """An episode that was begun with another model."""


class ProblemError(NRAgentError):
    """A problem that cannot be posed: empty, or too long for the model's context."""

    exit_code = 2


class MissingExtraError(ConfigurationError):
    """A package of an optional extra is needed and not installed."""

    def __init__(self, package: str, *, extra: str) -> None:
        super().__init__(f"this needs {package}, which is not installed", hint=f"pip install 'nr-agent[{extra}]'")


class ToolsUnsupportedError(ConfigurationError):
    """Tools were given to a model whose chat template knows none, or in a way that it cannot be asked for."""


class TaskError(ConfigurationError):
    """A benchmark task that is unknown or cannot be drawn."""


class ModelError(NRAgentError):
    """A checkpoint that is missing, broken, or of a kind that cannot be run."""

    exit_code = 3


class EngineError(NRAgentError):
    """The engine was asked for something that it cannot do."""


class ContextLengthError(EngineError, ProblemError):
    """A sequence would grow beyond the model's context."""


class UnknownSequenceError(EngineError):
    """A sequence handle that this engine never issued, or that was closed."""


class ChannelError(EngineError):
    """A channel that the model does not have, or a tap that failed its numeric self-check."""


class Cancelled(EngineError):  # noqa: N818 - it is a control-flow signal, named as in concurrent.futures
    """The caller cancelled a step while it was being thought."""


class DetectorError(NRAgentError):
    """A detector folder that is missing or broken."""

    exit_code = 3


class DetectorMismatchError(DetectorError):
    """A detector that was fitted on another model, tokenizer or set of channels."""


class PolicyError(NRAgentError):
    """A policy that returned no valid action, or a policy file that cannot be read."""

    exit_code = 2


class BudgetExceededError(NRAgentError):
    """An episode ran into a budget, and the reasoner was asked to raise then (`exit_behavior="error"`).

    Attributes:
        report: the public `reasoning` report, with the partial answer.
    """

    exit_code = 5

    def __init__(self, message: str, *, report: dict[str, Any], hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.report = report


class StoreError(NRAgentError):
    """The episode store cannot be opened, read or written."""

    exit_code = 4


class SchemaVersionError(StoreError):
    """The database's schema is newer, or older, than this library can use."""


class NotFoundError(StoreError):
    """No episode, run or export has this id."""

    exit_code = 3


class ExportError(NRAgentError):
    """An export that cannot be written, or that lost something on the way."""


class TrainingError(NRAgentError):
    """A training run that cannot go on: the loss is no number any more, or memory ran out."""


class LabelError(NRAgentError):
    """A source of labels that gave none: a row of another shape, or a judge whose verdict cannot be read."""
