"""The episode store: nothing that happened is lost."""

from nr_agent.store.annotations import Annotation, Run
from nr_agent.store.filters import EpisodeFilter, EpisodeSummary
from nr_agent.store.store import EpisodeStore

__all__ = ["Annotation", "EpisodeFilter", "EpisodeStore", "EpisodeSummary", "Run"]
