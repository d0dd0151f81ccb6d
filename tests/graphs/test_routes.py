"""Each way through the graph, over a scripted engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from graphs_helpers import ask, stream_into, words

from nr_agent.actions import Branch, Continue, Recheck, Stop
from nr_agent.episode import Problem
from nr_agent.errors import ConfigurationError, ContextLengthError, DetectorMismatchError, PolicyError, ProblemError
from nr_agent.graphs import Budget, ReasonerContext, create_reasoner
from nr_agent.graphs.branching import rank
from nr_agent.graphs.recording import judge
from nr_agent.policies import BranchPolicy, Policies, RecheckPolicy
from nr_agent.testing import ScriptedDetector, ScriptedEngine
from nr_agent.tokens import BRANCH, CLOSING_SENTENCE, END_THINK, IN_DETAIL, RECHECK, REDO, THINK

STAYS = {"intra_step": RecheckPolicy()}
"""The recheck follows the step."""


def test_undisturbed_thinking_is_recorded_token_by_token(solve):
    run = solve(ScriptedEngine(["2+2=4", "So the answer is 4."], answer="\\boxed{4}"))
    assert run.report["answer"] == "4" and run.report["stop_reason"] == "finished"
    assert run.thoughts() == ["2+2=4\n\n", "So the answer is 4.\n\n"]
    assert run.final_text.endswith(f"<think>\n2+2=4\n\nSo the answer is 4.\n\n{END_THINK}\n\n\\boxed{{4}}<|im_end|>")
    assert run.episode.status == "completed" and run.episode.answer == "4"
    assert run.report["steps"] == 2 and run.report["interventions"] == []
    message = run.output["messages"][-1]
    assert message.content == "4"
    assert message.additional_kwargs["reasoning_content"] == "2+2=4\n\nSo the answer is 4."
    assert message.usage_metadata["total_tokens"] == len(run.episode.ids)
    assert run.engine.open_sequences == 0


def test_closing_behind_a_last_thought_begins_the_answer(solve):
    run = solve(ScriptedEngine([f"2+2=4{END_THINK}"]))
    assert [(step.kind, step.text) for step in run.episode.steps[1:3]] == [("think", "2+2=4"), ("answer", END_THINK)]
    starts = [step.start for step in run.episode.steps]
    assert starts == [sum(len(step.ids) for step in run.episode.steps[:n]) for n in range(len(starts))]


def test_turn_that_ends_inside_the_thinking_answers_with_its_last_thought(solve):
    run = solve(ScriptedEngine(["2+2=4", "Four apples<|im_end|>"], missing=[THINK, END_THINK]))
    message = run.output["messages"][-1]
    assert (run.report["answer"], message.content) == ("Four apples", "Four apples")
    assert message.additional_kwargs["reasoning_content"] == "2+2=4\n\nFour apples"
    assert run.thoughts()[-1] == "Four apples<|im_end|>"


@pytest.mark.parametrize(
    ("written", "content", "answer"),
    [
        ("So it is \\boxed{4}, as two and two are.", "4", "4"),
        ("Four apples:\n1. Gala\n2. Haze", "Four apples:\n1. Gala\n2. Haze", "2. Haze"),
        ("It goes so:\n```python\nprint(2 + 2)\n```", "It goes so:\n```python\nprint(2 + 2)\n```", "print(2 + 2)"),
    ],
)
def test_message_is_the_answer_where_the_reply_says_which_else_the_reply(solve, written, content, answer):
    run = solve(ScriptedEngine(["2+2=4"], answer=written))
    assert (run.output["messages"][-1].content, run.report["answer"]) == (content, answer)


def test_calls_of_tools_are_in_the_message():
    call = '<tool_call>{"name": "add", "arguments": {"a": 2}}</tool_call>'
    tools = [{"type": "function", "function": {"name": "add", "description": "d", "parameters": {}}}]
    reasoner = create_reasoner(ScriptedEngine(["I add."], answer=call, tools=True), detector=None)
    told = {"configurable": {"nr_agent": {"tools": tools}}}
    output = reasoner.invoke({"messages": [("user", "2+2?")]}, told)
    message = output["messages"][-1]
    assert [(one["name"], one["args"]) for one in message.tool_calls] == [("add", {"a": 2})]
    assert (message.content, output["reasoning"]["answer"]) == ("", None)
    assert message.response_metadata["finish_reason"] == "tool_calls"


def test_recheck_follows_the_step_with_its_token(solve):
    run = solve(ScriptedEngine(["2+2=5 slip", "2+2=4, not what I had", "done"]), words, policies=STAYS)
    assert run.thoughts()[:2] == ["2+2=5 slip\n\n", f"{RECHECK}{REDO}2+2=4, not what I had\n\n"]
    spoken = 1 + len(REDO)
    assert run.episode.steps[2].provenance[0] == ("inserted", spoken)
    assert run.episode.steps[2].ids[0] == run.engine.codec.control(RECHECK)
    (intervention,) = run.report["interventions"]
    assert intervention["kind"] == "recheck" and intervention["outcome"] == "changed" and intervention["step"] == 1
    assert intervention["event_id"] == run.report["events"][0]["id"]
    assert run.report["usage"]["inserted"] == spoken and run.report["usage"]["discarded"] == 0


def test_recheck_with_rollback_discards_the_step_and_counts_it(solve):
    run = solve(
        ScriptedEngine(["fine", "2+2=5 slip", "2+2=4"]), words, policies={"intra_step": RecheckPolicy(rollback=True)}
    )
    assert run.thoughts() == ["fine\n\n", f"{RECHECK}{IN_DETAIL}2+2=4\n\n"]
    assert [step.text for step in run.episode.steps if step.discarded] == ["2+2=5 slip\n\n"]
    assert run.report["usage"]["discarded"] == len("2+2=5 slip\n\n")
    assert run.report["interventions"][0]["rolled_back"] == len("2+2=5 slip\n\n")
    assert "slip" not in run.final_text


def test_rolled_back_step_is_forgotten_by_the_observer(solve):
    seen = []

    class Remembering(ScriptedDetector):
        def scores(self, before, segment, text, *, key):
            seen.append((len(before), text))
            return words(text)

    engine = ScriptedEngine(["fine", "slip", "again", "on"])
    solve(engine, None)  # a script is told anew for every sequence
    reasoner = create_reasoner(engine, detector=Remembering([]), policies={"intra_step": RecheckPolicy(rollback=True)})
    reasoner.invoke(ask())
    # What only closes the thinking is not looked at.
    assert [look for look, _ in seen] == [0, 1, 1, 2]
    assert all(END_THINK not in text for _, text in seen)


def test_prompted_mode_speaks_in_words(solve):
    run = solve(ScriptedEngine(["slip", "better"], missing=[RECHECK, BRANCH]), words, policies=STAYS)
    assert "slip\n\nWait, let me redo that: better\n\n" in run.final_text
    assert run.report["interventions"][0]["mode"] == "prompted"


def test_remedy_after_a_cut_step_begins_a_new_paragraph(solve):
    run = solve(ScriptedEngine(["slip and much more", "x"]), words, policies=STAYS, budget=Budget(max_step_tokens=6))
    assert f"slip a\n\n{RECHECK}" in run.final_text


def test_early_stop_closes_the_thinking_with_the_special_id(solve):
    run = solve(ScriptedEngine(["2+2=4, so the answer is 4", "enough", "never thought"], answer="\\boxed{4}"), words)
    assert run.report["stop_reason"] == "early_stop" and run.report["answer"] == "4"
    assert "never thought" not in run.final_text
    answer = run.episode.kept[-1]
    close = run.engine.codec.control(END_THINK)
    assert close in answer.ids and answer.provenance[0] == ("inserted", len(CLOSING_SENTENCE) + 5)
    assert run.report["interventions"][0]["kind"] == "stop" and run.report["interventions"][0]["outcome"] == "closed"


def test_model_that_does_not_know_the_closing_token_is_closed_in_words(solve):
    run = solve(ScriptedEngine(["The answer is 42: enough"], missing=[END_THINK]), words)
    assert f"{CLOSING_SENTENCE}\n\n{END_THINK}\n\nThe final answer" in run.final_text
    assert run.report["answer"] == "42"


def test_spelled_out_closing_ends_the_thinking(solve):
    run = solve(ScriptedEngine(["a", f"b{END_THINK}"], missing=[END_THINK], answer="\\boxed{7}"))
    assert run.report["stop_reason"] == "finished" and run.report["answer"] == "7"
    assert run.thoughts() == ["a\n\n", "b"]


def branching(text: str, seed: int) -> str | None:
    """Circles in its second step; of its forks the one with the odd seed slips."""
    if text.endswith(BRANCH):
        return "slip" if seed % 2 else "a better way"
    return None if BRANCH in text else ("first" if "first" not in text else "circle")


def test_branch_keeps_the_fork_that_the_detector_likes_best(solve):
    run = solve(ScriptedEngine(branching), words, policies={"inter_step": BranchPolicy(width=3)})
    assert run.thoughts() == ["first\n\n", f"{BRANCH}a better way\n\n"]
    given_up = [step for step in run.episode.steps if step.discarded]
    assert [step.text for step in given_up] == ["circle\n\n", f"{BRANCH}slip\n\n", f"{BRANCH}slip\n\n"]
    (intervention,) = run.report["interventions"]
    assert intervention["branches"] == ["branch-1", "branch-2", "branch-3"] and intervention["kept"] == "branch-2"
    assert run.report["usage"]["discarded"] == sum(len(step.ids) for step in given_up)
    assert len({step.index for step in run.episode.steps}) == len(run.episode.steps)
    assert run.engine.open_sequences == 0


def test_branch_without_a_preference_keeps_what_the_model_was_surest_of(solve):
    script = lambda text, seed: f"way {seed}" if text.endswith(BRANCH) else (None if BRANCH in text else "circle")  # noqa: E731
    sure = lambda text: -0.01 if "way 2" in text else -1.0  # noqa: E731
    run = solve(ScriptedEngine(script, confidence=sure), words, policies={"inter_step": BranchPolicy(width=3)})
    assert run.thoughts() == [f"{BRANCH}way 2\n\n"]


def test_forks_rank_by_events_then_score_then_likelihood():
    base = {"branch": "a", "events": [], "scores": {"intra_step": 0.3}, "logprob": -1.0}
    assert rank(base) < rank({**base, "events": [{}], "scores": {}})
    assert rank(base) < rank({**base, "scores": {"intra_step": 0.4}, "logprob": -0.1})
    assert rank({**base, "logprob": -0.5}) < rank(base)
    assert rank(base) < rank({**base, "branch": "b"})


def test_branch_at_the_first_step_forks_behind_the_prompt(solve):
    script = lambda text: "new" if text.endswith(BRANCH) else (None if BRANCH in text else "circle")  # noqa: E731
    run = solve(ScriptedEngine(script), words, policies={"inter_step": BranchPolicy(back=5)})
    assert run.thoughts() == [f"{BRANCH}new\n\n"]


def test_fork_that_closes_its_thinking_goes_on_to_the_answer(solve):
    script = lambda text: f"so{END_THINK}" if text.endswith(BRANCH) else "circle"  # noqa: E731
    run = solve(ScriptedEngine(script), words)
    assert run.report["stop_reason"] == "finished" and run.thoughts() == [f"{BRANCH}so"]


def test_watching_without_control_records_and_leaves_alone(solve):
    run = solve(ScriptedEngine(["slip", "circle", "enough"]), words, control=False)
    assert [event["level"] for event in run.report["events"]] == ["intra_step", "inter_step", "instance"]
    assert run.report["interventions"] == [] and run.episode.policy is None
    assert run.thoughts() == ["slip\n\n", "circle\n\n", "enough\n\n"]


def test_interventions_are_limited_and_spaced(solve):
    run = solve(ScriptedEngine(["slip"] * 12), words)
    assert [item["step"] for item in run.report["interventions"]] == [1, 3, 5]


class Answering:
    name = "answering"

    def __init__(self, action):
        self.action = action
        self.contexts = []

    def decide(self, context):
        self.contexts.append(context)
        return self.action


@pytest.mark.parametrize("garbage", ["recheck", None, {"type": "stop"}, 3])
def test_garbage_from_a_policy_is_an_error_that_names_everything(garbage, store):
    reasoner = create_reasoner(
        ScriptedEngine(["slip"]),
        detector=ScriptedDetector(words),
        policies={"intra_step": Answering(garbage)},
        store=store,
    )
    events = []
    with pytest.raises(PolicyError, match=r"'answering'.*intra_step\.calculation.*step 1(.|\n)*Continue, Recheck"):
        stream_into(events, reasoner)
    episode = store.get(events[0]["episode_id"])
    assert episode.status == "failed" and "PolicyError" in episode.error


@pytest.mark.parametrize("action", [Continue(), Recheck(), Branch(), Stop()])
def test_policy_may_return_any_action(action, solve):
    run = solve(ScriptedEngine(["slip", "b"]), words, policies={"intra_step": Answering(action)})
    kinds = [item["kind"] for item in run.report["interventions"]]
    assert kinds == ([] if action.type == "continue" else [action.type])


def test_policy_sees_the_episode_so_far(solve):
    policy = Answering(Recheck())
    solve(
        ScriptedEngine(["So the answer is 3", "slip", "fine", "slip"]),
        words,
        policies=Policies({"intra_step": policy}),
        context=ReasonerContext(domain="math"),
        budget=Budget(max_tokens=100),
    )
    first, second = policy.contexts
    assert (first.step, first.steps, first.since_intervention, first.answer_stated, first.domain) == (
        2,
        2,
        None,
        True,
        "math",
    )
    assert first.tokens_used + first.tokens_left == 100
    assert second.interventions == {"recheck": 1} and second.since_intervention == 2
    assert [event.step for event in second.events] == [2, 4]


def test_a_recheck_that_failed_is_taken_back_with_its_step_and_left_in_forks(solve):
    run = solve(
        ScriptedEngine(["fine", "slip", "slip again", "better", "good"]),
        words,
        policies=Policies({"intra_step": RecheckPolicy(escalate=True)}, refractory=0),
    )
    assert [item["kind"] for item in run.report["interventions"]] == ["recheck", "branch"]
    given_up = [step.text.strip() for step in run.episode.steps if step.discarded]
    assert len(given_up) == 3 and given_up[0] == "slip" and given_up[1].endswith("slip again")


def test_answer_that_was_taken_back_is_no_longer_stated(solve):
    policy = Answering(Recheck(rollback=True))
    script = ["slip: the answer is 3", "fine", "slip", "the answer is 4", "slip"]
    solve(ScriptedEngine(script), words, policies={"intra_step": policy})
    assert [context.answer_stated for context in policy.contexts] == [True, False, True]


def test_parts_that_do_not_fit_fail_when_the_graph_is_built(tmp_path: Path):
    engine = ScriptedEngine([])
    with pytest.raises(DetectorMismatchError, match="scripted:other"):
        create_reasoner(engine, detector=ScriptedDetector([], fingerprint="scripted:other"))
    with pytest.raises(ConfigurationError, match=r"recheck"):
        create_reasoner(ScriptedEngine([], missing=[RECHECK]), mode="token")
    with pytest.raises(PolicyError, match="no policy pack"):
        create_reasoner(engine, policies="nonsense")
    with pytest.raises(PolicyError, match="intra"):
        create_reasoner(engine, policies={"intra": RecheckPolicy()})
    with pytest.raises(ConfigurationError, match="exit_behavior"):
        create_reasoner(engine, exit_behavior="crash")  # type: ignore[arg-type]


@pytest.mark.parametrize("messages", [[], [{"role": "user", "content": "  "}], [{"role": "system", "content": "x"}]])
def test_empty_problem_is_refused(messages):
    with pytest.raises(ProblemError, match="no problem"):
        create_reasoner(ScriptedEngine([])).invoke({"messages": messages})


def test_prompt_beyond_the_context_is_refused():
    with pytest.raises(ContextLengthError, match="takes 100"):
        create_reasoner(ScriptedEngine([], context=100)).invoke(ask("x" * 100))


def test_conversation_before_the_problem_is_rendered(store):
    reasoner = create_reasoner(ScriptedEngine(["a"]), store=store)
    turns = [("system", "Be brief."), ("user", "1+1?"), ("ai", "2"), ("user", "and 2+2?")]
    output = reasoner.invoke({"messages": turns})
    episode = store.get(output["reasoning"]["episode_id"])
    assert episode.problem.text == "and 2+2?"
    assert all(text in episode.steps[0].text for _, text in turns)
    assert len(output["messages"]) == 5


def test_an_episode_says_how_many_turns_and_tools_the_model_saw(store):
    reasoner = create_reasoner(ScriptedEngine(["a"], tools=True), store=store)
    talk = [("system", "Be brief."), ("user", "1+1?"), ("ai", "2"), ("user", "and 2+2?")]
    tool = {"type": "function", "function": {"name": "add", "description": "d", "parameters": {}}}
    for messages, tools, seen in ((talk[-1:], [], (1, 0)), (talk, [], (4, 0)), (talk[-1:], [tool, tool], (1, 2))):
        output = reasoner.invoke({"messages": messages}, {"configurable": {"nr_agent": {"tools": tools}}})
        kept = store.get(output["reasoning"]["episode_id"]).settings
        assert (kept["turns"], kept["tools"]) == seen


def test_facts_of_a_run_reach_its_episode(solve):
    run = solve(
        ScriptedEngine(["a"], answer="\\boxed{4}"),
        config={"configurable": {"nr_agent": {"reference": "4", "budget": {"max_steps": 9}}}},
        context=ReasonerContext(domain="math", seed=7, reference="5", metadata={"split": "dev"}),
    )
    assert run.episode.problem.reference == "4" and run.episode.correct is True
    assert run.episode.problem.metadata == {"split": "dev"} and run.episode.seed == 7
    assert run.episode.settings["budget"]["max_steps"] == 9


@pytest.mark.parametrize("override", [{"sed": 1}, {"budget": {"max_token": 3}}])
def test_unknown_override_of_a_run_is_refused(override):
    with pytest.raises(ConfigurationError, match="allowed"):
        create_reasoner(ScriptedEngine(["a"])).invoke(ask(), {"configurable": {"nr_agent": override}})


def test_failure_of_the_engine_finishes_the_episode_and_is_raised(store):
    def script(text):
        if "fine" in text:
            raise RuntimeError("the machine is on fire")
        return "fine"

    engine, events = ScriptedEngine(script), []
    with pytest.raises(RuntimeError, match="on fire"):
        stream_into(events, create_reasoner(engine, store=store))
    episode = store.get(events[0]["episode_id"])
    assert episode.status == "failed" and "the machine is on fire" in episode.error
    assert [step.text for step in episode.steps[1:]] == ["fine\n\n"]
    assert engine.open_sequences == 0


def test_interrupted_keyboard_marks_the_episode(store):
    def script(text):
        raise KeyboardInterrupt

    events = []
    with pytest.raises(KeyboardInterrupt):
        stream_into(events, create_reasoner(ScriptedEngine(script), store=store))
    assert store.get(events[0]["episode_id"]).status == "interrupted"


def test_answers_are_judged_only_where_that_can_be_done():
    problem = Problem(text="x", reference="4")
    assert judge(problem, " 4 ") is True and judge(problem, "5") is False and judge(problem, None) is False
    assert judge(Problem(text="x"), "4") is None


def test_control_tokens_in_a_problem_stay_text(solve, store):
    engine = ScriptedEngine(["a"])
    text = f"Say {END_THINK} and {RECHECK} and <|im_end|>"
    output = create_reasoner(engine, store=store).invoke(ask(text))
    prompt = store.get(output["reasoning"]["episode_id"]).steps[0]
    assert text in prompt.text
    plain = engine.codec.render([{"role": "user", "content": ""}])
    control = {engine.codec.control(token) for token in (END_THINK, RECHECK, "<|im_end|>")}
    assert sum(token in control for token in prompt.ids) == sum(token in control for token in plain)
