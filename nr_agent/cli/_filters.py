"""Options that choose episodes, read into a filter."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from nr_agent.store import EpisodeFilter

_HOURS = {"h": 1, "d": 24, "w": 24 * 7}


def read_filter(
    *, event: str | None = None, since: str | None = None, until: str | None = None, **fields: Any
) -> EpisodeFilter:
    """The filter of options; an event is a level or a kind, a time is a date or how long ago.

    Raises:
        ConfigurationError: an option makes no sense.
    """
    from pydantic import ValidationError  # noqa: PLC0415 - keeps --help quick

    from nr_agent.episode import Intervention  # noqa: PLC0415 - keeps --help quick
    from nr_agent.errors import ConfigurationError  # noqa: PLC0415 - beside its use
    from nr_agent.events import KINDS, LEVELS  # noqa: PLC0415 - keeps --help quick
    from nr_agent.store import EpisodeFilter  # noqa: PLC0415 - imports SQLAlchemy

    remedies = get_args(Intervention.model_fields["kind"].annotation)
    for name, text, known in (
        ("event", event, (*LEVELS, *KINDS)),
        ("intervention", fields.get("intervention"), remedies),
    ):
        if text is not None and text not in known:
            raise ConfigurationError(f"--{name} {text!r}: there is none", hint=f"choose from: {', '.join(known)}")
    if event is not None:
        fields["level" if event in LEVELS else "event"] = event
    for name, text in (("since", since), ("until", until)):
        if text is not None:
            fields[name] = _moment(name, text)
    try:
        return EpisodeFilter(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigurationError(f"--{first['loc'][0]}: {first['msg']}", hint="see the command's --help") from error


def read_age(text: str) -> timedelta | None:
    """A length of time such as 12h, 30d or 8w; None for anything else."""
    match = re.fullmatch(r"([1-9]\d{0,5})([hdw])", text.strip())
    return timedelta(hours=int(match[1]) * _HOURS[match[2]]) if match else None


def _moment(name: str, text: str) -> datetime:
    from nr_agent.errors import ConfigurationError  # noqa: PLC0415 - beside its use

    age = read_age(text.removesuffix("ago"))
    if age is not None:
        return datetime.now(UTC) - age
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(
            f"--{name} {text!r} is no time", hint="give a date (2026-01-31), a time (2026-01-31T08:00), or 7d"
        ) from error
    return moment if moment.tzinfo else moment.astimezone()
