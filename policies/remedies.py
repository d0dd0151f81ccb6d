"""How a remedy is spoken: with correction tokens that the model was trained to obey, or in plain words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from nr_agent.actions import Action, Branch, Recheck
from nr_agent.engine.protocol import TextCodec
from nr_agent.errors import ConfigurationError
from nr_agent.tokens import BRANCH, CLOSING_SENTENCE, CORRECTION_TOKENS, END_THINK, IN_DETAIL, RECHECK, REDO, STEP_END

Mode = Literal["token", "prompted"]

RECHECK_WORDS: Final = "Wait, let me redo that: "
CAREFUL_WORDS: Final = "Let me take this step carefully: "
BRANCH_WORDS: Final = "Let me try another way.\n\n"

_LEAST_TOKENS: Final = 64


def least_tokens(action: Action) -> int:
    """Tokens without which an action is not begun: for what a remedy inserts and a step behind it, in each fork."""
    if isinstance(action, Branch):
        return _LEAST_TOKENS * action.width
    return _LEAST_TOKENS if isinstance(action, Recheck) else 0


@dataclass(frozen=True)
class Remedies:
    """The ids that the controller inserts.

    Every method takes `boundary`: whether the thinking stands at the end of a step. Where it does not, because
    a step was cut at its length, a blank line goes first.

    Attributes:
        codec: of the engine.
        mode: `token` or `prompted`.
    """

    codec: TextCodec
    mode: Mode
    _spoken: dict[str, tuple[int, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def recheck(self, *, boundary: bool = True, rollback: bool = False) -> list[int]:
        """Asks for the last step again; where it was taken back, for a careful one in its place.

        A model that was taught the token gets the first words of what is meant with it.
        """
        words, begun = (CAREFUL_WORDS, IN_DETAIL) if rollback else (RECHECK_WORDS, REDO)
        spoken = self._speak(RECHECK, words, boundary)
        return [*spoken, *self._encode(begun)] if self._has(RECHECK) else spoken

    def branch(self, *, boundary: bool = True) -> list[int]:
        """Asks for another way."""
        return self._speak(BRANCH, BRANCH_WORDS, boundary)

    def closing(self, *, boundary: bool = True) -> list[int]:
        """Closes the thinking: a sentence, then the special token itself (spelled out where there is none)."""
        start = "" if boundary else STEP_END
        return self._encode(f"{start}{CLOSING_SENTENCE}{STEP_END}{END_THINK}{STEP_END}")

    def _speak(self, token: str, words: str, boundary: bool) -> list[int]:
        start = [] if boundary else self._encode(STEP_END)
        identifier = self.codec.control(token)
        if self._has(token) and identifier is not None:
            return [*start, identifier]
        return [*start, *self._encode(words)]

    def _encode(self, text: str) -> list[int]:
        """Every step asks for the same few texts."""
        if text not in self._spoken:
            self._spoken[text] = tuple(self.codec.encode(text))
        return list(self._spoken[text])

    def _has(self, token: str) -> bool:
        return self.mode == "token" and self.codec.control(token) is not None


def choose_mode(codec: TextCodec, mode: Literal["auto", "token", "prompted"]) -> Mode:
    """The way to speak to a model: `auto` is `token` where it has the correction tokens.

    Raises:
        ConfigurationError: `token` was asked of a model without them.
    """
    missing = [token for token in CORRECTION_TOKENS if codec.control(token) is None]
    if mode == "token" and missing:
        raise ConfigurationError(
            f"mode 'token' needs correction tokens that this model lacks: {', '.join(missing)}",
            hint="use mode='prompted', or train the triggers into the model first",
        )
    if mode == "auto":
        return "prompted" if missing else "token"
    return mode
