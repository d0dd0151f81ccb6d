"""The reasoner: think, watch, act, answer, as a LangGraph graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from weakref import WeakKeyDictionary

from langgraph.cache.base import BaseCache
from langgraph.graph import END, START, StateGraph
from langgraph.types import Checkpointer

from nr_agent.detection.protocol import Calibrated, Detector
from nr_agent.engine.protocol import Engine, Sampling
from nr_agent.errors import ConfigurationError, DetectorMismatchError, PolicyError
from nr_agent.graphs.answering import Answer
from nr_agent.graphs.asking import AskHuman
from nr_agent.graphs.branching import Branch, Choose, Explore, send_forks
from nr_agent.graphs.budget import Budget
from nr_agent.graphs.checking import check_choice, check_parts, read_budget, read_sampling
from nr_agent.graphs.context import ReasonerContext
from nr_agent.graphs.control import NODES
from nr_agent.graphs.memory import Memory
from nr_agent.graphs.opening import Open
from nr_agent.graphs.parts import Parts
from nr_agent.graphs.ready import Reasoner, ready
from nr_agent.graphs.rechecking import Recheck
from nr_agent.graphs.recording import Record
from nr_agent.graphs.running import quick, waiting
from nr_agent.graphs.state import Asked, Channels, Fork, ReasonerInput, ReasonerOutput
from nr_agent.graphs.stopping import Stop
from nr_agent.graphs.thinking import Think
from nr_agent.policies import Policies, Remedies, Rules, choose_mode, load_policies

if TYPE_CHECKING:
    from nr_agent.store import EpisodeStore

Graph: TypeAlias = StateGraph[Channels, ReasonerContext, Asked, ReasonerOutput]
_MADE: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()
"""The nodes of the graphs that are in use."""

GENERATING = ("think", "explore", "answer")
"""The nodes that have the model write something."""

AnyPolicies: TypeAlias = str | Path | Policies | Mapping[str, Rules]


def create_reasoner(
    engine: Engine | str | Path,
    *,
    detector: Detector | Literal["auto"] | None = "auto",
    policies: AnyPolicies = "default",
    store: EpisodeStore | None = None,
    budget: Budget = Budget(),  # noqa: B008 - immutable
    sampling: Sampling = Sampling(),  # noqa: B008 - immutable
    seed: int = 0,
    mode: Literal["auto", "token", "prompted"] = "auto",
    control: bool = True,
    exit_behavior: Literal["end", "error"] = "end",
    checkpointer: Checkpointer = None,
    cache: BaseCache[Any] | None = None,
    name: str = "nr_reasoner",
) -> Reasoner:
    """A reasoner, ready to run: a graph from `messages` to `messages` and a `reasoning` report.

    Args:
        engine: thinks; or the name or folder of a model that is to be loaded.
        detector: watches. `auto` is the model's own, in the folder that it was loaded from, if there is one there; None
            watches nothing.
        policies: decide on failure events: a pack's name, a file, or policies by level or kind.
        store: keeps the episodes; in memory by default.
        budget: what an episode may cost.
        sampling: how tokens are drawn.
        seed: of the sampling; a run may have its own (see `ReasonerContext`).
        mode: how remedies are spoken: by correction token, or in words. `auto` takes tokens where there are any.
        control: whether events are acted upon; otherwise they are only recorded.
        exit_behavior: what an episode that ran into a budget does: `end` with what it has, or raise an `error`.
        checkpointer: as in LangGraph; needed to ask a person.
        cache: as in LangGraph.
        name: of the graph.

    Raises:
        ConfigurationError: parts do not fit together.
        DetectorMismatchError: the detector was fitted on another model.
        PolicyError: the policies cannot be loaded.
        ModelError: the model cannot be loaded.
    """
    graph = build_reasoner(
        engine,
        detector=detector,
        policies=policies,
        store=store,
        budget=budget,
        sampling=sampling,
        seed=seed,
        mode=mode,
        control=control,
        exit_behavior=exit_behavior,
    )
    compiled = graph.compile(checkpointer=checkpointer, cache=cache, name=name)
    parts = nodes_of(graph)["open"].parts
    return ready(compiled, parts.leave, parts.clean_up)


def build_reasoner(
    engine: Engine | str | Path,
    *,
    detector: Detector | Literal["auto"] | None = "auto",
    policies: AnyPolicies = "default",
    store: EpisodeStore | None = None,
    budget: Budget = Budget(),  # noqa: B008 - immutable
    sampling: Sampling = Sampling(),  # noqa: B008 - immutable
    seed: int = 0,
    mode: Literal["auto", "token", "prompted"] = "auto",
    control: bool = True,
    exit_behavior: Literal["end", "error"] = "end",
) -> Graph:
    """The reasoner's graph before it is compiled, to add nodes and edges to; see `create_reasoner`."""
    check_choice("exit_behavior", exit_behavior, ("end", "error"))
    check_choice("mode", mode, ("auto", "token", "prompted"))
    budget, sampling = read_budget(budget), read_sampling(sampling)
    chosen = _policies(policies)
    engine, detector = load_parts(engine, detector)
    check_parts(engine, detector, store, seed)
    _check_detector(engine, detector)
    watching: object = detector  # whether it can do more than a detector has to
    if chosen.alarms and isinstance(watching, Calibrated):
        detector = watching.at(chosen.alarms)
    if detector is not None:
        engine.attach(detector.plan, replace=False)  # another reasoner on this engine may need what is read
    remedies = Remedies(engine.codec, choose_mode(engine.codec, mode))
    parts = Parts(
        engine=engine,
        detector=detector,
        policies=chosen,
        store=open_store(store),
        remedies=remedies,
        sampling=sampling,
        control=control,
        memory=Memory(detector),
    )
    settings = {"mode": remedies.mode, "control": control, "attended": chosen.attended, "alarms": dict(chosen.alarms)}
    nodes = {
        "open": Open(parts, budget=budget, seed=seed, settings=settings),
        "think": Think(parts),
        "recheck": Recheck(parts),
        "branch": Branch(parts),
        "explore": Explore(parts),
        "choose": Choose(parts),
        "ask_human": AskHuman(parts),
        "stop": Stop(parts),
        "answer": Answer(parts),
        "record": Record(parts, raises=exit_behavior == "error"),
    }
    graph = wire(nodes)
    _MADE[graph] = nodes
    return graph


def nodes_of(reasoner: Reasoner | Graph) -> dict[str, Any]:
    """The nodes of a reasoner by their names.

    Raises:
        ConfigurationError: it is not one of ours.
    """
    graph = getattr(reasoner, "builder", reasoner)
    nodes = _MADE.get(graph) if isinstance(graph, StateGraph) else None
    if nodes is None:
        raise ConfigurationError(
            f"a {type(reasoner).__name__} is no reasoner", hint="make it with create_reasoner(...)"
        )
    return nodes


def parts_of(reasoner: Reasoner) -> Parts:
    """What a reasoner is made of; see `nodes_of`."""
    parts: Parts = nodes_of(reasoner)["open"].parts
    return parts


def wire(nodes: Mapping[str, Any]) -> Graph:
    """The ways between the nodes, which are given by name."""
    graph = new_graph()
    for name, node in nodes.items():
        made = waiting(node, name) if name in GENERATING else quick(node, name)
        graph.add_node(name, made, input_schema=Fork if name == "explore" else None)
    after_step = [*NODES.values(), "answer", "record"]
    graph.add_edge(START, "open")
    graph.add_conditional_edges("open", next_node, ["think", "answer"])
    graph.add_conditional_edges("think", next_node, after_step)
    graph.add_edge("recheck", "think")
    graph.add_conditional_edges("branch", send_forks, ["explore"])
    graph.add_edge("explore", "choose")
    graph.add_conditional_edges("choose", next_node, after_step)
    graph.add_conditional_edges("ask_human", next_node, ["think", "recheck", "branch", "stop", "record"])
    graph.add_edge("stop", "answer")
    graph.add_edge("answer", "record")
    graph.add_edge("record", END)
    return graph


def new_graph() -> Graph:
    """A graph with our channels, without nodes."""
    asked: Any = ReasonerInput
    return StateGraph(Channels, ReasonerContext, input_schema=asked, output_schema=ReasonerOutput)


def next_node(channels: Channels) -> str:
    """The node that a state names as the next."""
    return str(channels["course"]["next"])


def load_parts(
    engine: Engine | str | Path, detector: Detector | Literal["auto"] | None
) -> tuple[Engine, Detector | None]:
    """The engine, loaded where it is given by name, and its detector; `auto` is its model's own, if there is one."""
    if isinstance(engine, str | Path):
        from nr_agent.models.registry import load_engine  # noqa: PLC0415 - imports torch when it loads

        engine = load_engine(str(engine))
    return engine, _own_detector(engine) if detector == "auto" else detector


def _own_detector(engine: Any) -> Detector | None:
    """The detector in the folder that an engine's model came from; engines that were made by hand know of none."""
    folder: Path | None = getattr(engine, "folder", None)
    if folder is None:
        return None
    from nr_agent.models import registry  # noqa: PLC0415 - imports torch when it loads

    place = folder / registry.DETECTOR_FOLDER
    return registry.load_detector(engine.name, engine, folder=place) if (place / "detector.json").is_file() else None


def _check_detector(engine: Engine, detector: Detector | None) -> None:
    if detector is not None and detector.fingerprint != engine.fingerprint:
        raise DetectorMismatchError(
            f"the detector {detector.id} was fitted on a model with fingerprint {detector.fingerprint}, "
            f"{engine.name} has {engine.fingerprint}",
            hint=f"fit one for it: nr-agent fit --model {getattr(engine, 'folder', None) or engine.name} --out DIR",
        )


def _policies(policies: AnyPolicies) -> Policies:
    if isinstance(policies, Policies):
        return policies
    if isinstance(policies, Mapping):
        return Policies(policies)
    if isinstance(policies, str | Path):
        return load_policies(policies)
    raise PolicyError(
        f"policies is {policies!r}, which says not what they are for",
        hint="give a pack's name, a YAML file, or a dict such as {'intra_step': RecheckPolicy()}",
    )


def open_store(store: EpisodeStore | None) -> EpisodeStore:
    """The store that is given, or one in memory."""
    if store is not None:
        return store
    from nr_agent.store import EpisodeStore  # noqa: PLC0415 - imports SQLAlchemy

    return EpisodeStore.in_memory()
