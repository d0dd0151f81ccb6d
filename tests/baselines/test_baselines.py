"""Each baseline does on the embedded LRM what its paper says. All count every token (see `solve`)."""

from __future__ import annotations

import math

import pytest

from nr_agent.engine.protocol import Sampling
from nr_agent.errors import ConfigurationError
from nr_agent.graphs import Budget, create_reasoner
from nr_agent.neurons.channels import Channel
from nr_agent.neurons.tap import ChannelPlan
from nr_agent.policies.baselines import (
    S1,
    AnswerConvergence,
    Deer,
    Dynasor,
    Neat,
    NoThinking,
    NoWait,
    SelfConsistency,
    SelfRefine,
    ThinkBrake,
    Vanilla,
)
from nr_agent.policies.baselines.texts import CLOSING, boxed, same_answer, says, word_ids
from nr_agent.store import EpisodeStore
from nr_agent.testing import ScriptedEngine
from nr_agent.tokens import END_THINK, STEP_END

WARM = Sampling(temperature=0.8)
TURNS = ("Wait", "Let me", "I should")  # how the embedded LRM turns


def trial(probe) -> list[float]:
    """Probabilities of what a trial answer has in its braces: sampled tokens without the first and the closing one."""
    drawn = [math.exp(p) for p in probe.logprobs if p is not None]
    return drawn[1:-1] if probe.text.endswith("}") else drawn[1:]


def test_words_and_numbers_are_those_of_the_papers():
    """Whoever changes one of them says so on the page on baselines."""
    assert NoThinking().phrase == "Okay, I think I have finished thinking.\n</think>\n\n"
    s1 = S1()
    assert (s1.ignore, s1.word, s1.forced) == (1, "Wait", "\n</think>\n\nFinal Answer:")
    deer = Deer()
    assert (deer.words, deer.trial) == (("Wait", "Alternatively"), "\n**Final Answer**\n\\boxed")
    assert (deer.trial_tokens, deer.threshold, deer.mean, deer.max_checks) == (20, 0.95, "arithmetic", 10)
    dynasor = Dynasor()
    assert dynasor.probe == ("... Oh, I suddenly got the answer to the whole problem, **Final Answer**\n\n\\[ \\boxed{")
    assert (dynasor.agree, dynasor.chunk, dynasor.probe_tokens) == (3, 64, 20)
    assert dynasor.doubts == ("wait", "hold", "but", "okay", "no", "hmm")
    assert " ".join(NoWait().words[:8]) == "wait alternatively hmm but however alternative another check"
    assert " ".join(NoWait().words[8:]) == "double-check oh maybe verify other again now ah any"
    assert ThinkBrake().margin == 0.1
    neat = Neat(channels=("FFN 0:0",), reference=(1.0,), plan=ChannelPlan([Channel("ffn", 0, 0)]))
    assert (neat.similarity, neat.almost, neat.magnitude) == (0.6, 0.4, 0.2)
    assert neat.words == ("Wait", "But", "Alternatively", "However", "Hmm")
    convergence = AnswerConvergence()
    assert (convergence.agree, CLOSING) == (10, "\n</think>\n\n") and convergence.probe.startswith(CLOSING)
    assert (SelfConsistency().samples, SelfRefine().rounds) == (8, 3)


@pytest.mark.parametrize("problem", [0, 1, 2])
@pytest.mark.parametrize("sampling", [Sampling(temperature=0.0), WARM])
def test_vanilla_is_the_bare_model_token_for_token(solve, engine, problem, sampling):
    ours = solve(Vanilla(), problem, sampling=sampling, seed=7)
    store = EpisodeStore.in_memory()
    bare = create_reasoner(engine, detector=None, control=False, sampling=sampling, store=store, seed=7)
    other = store.get(bare.invoke({"messages": [("user", ours.episode.problem.text)]})["reasoning"]["episode_id"])
    assert ours.episode.ids == other.ids
    assert ours.episode.usage == other.usage and ours.episode.answer == other.answer


@pytest.mark.parametrize("budget", [{"max_steps": 5}, {"max_tokens": 50}, {"max_step_tokens": 6}])
def test_budgets_cut_vanilla_where_they_cut_the_bare_model(solve, engine, budget):
    ours = solve(Vanilla(), **budget)
    store = EpisodeStore.in_memory()
    greedy = Sampling(temperature=0.0)
    bare = create_reasoner(engine, detector=None, control=False, sampling=greedy, store=store, budget=Budget(**budget))
    other = store.get(bare.invoke({"messages": [("user", ours.episode.problem.text)]})["reasoning"]["episode_id"])
    assert ours.episode.ids == other.ids and ours.episode.stop_reason == other.stop_reason


@pytest.mark.parametrize(
    "baseline", [ThinkBrake(margin=-1.0), Deer(words=TURNS, threshold=1.1), Dynasor(agree=99, chunk=16)]
)
def test_budget_of_steps_counts_paragraphs_wherever_a_baseline_cuts(solve, baseline):
    run = solve(baseline, max_steps=6, max_step_tokens=20)
    assert run.report["stop_reason"] == "step_budget"
    assert 6 <= run.thinking.count(STEP_END) <= 9


@pytest.mark.parametrize("problem", [0, 1, 2])
def test_nothinking_writes_no_step_of_thinking(solve, problem):
    run = solve(NoThinking(), problem)
    assert run.thoughts == [] and run.report["usage"]["thinking"] == 0
    assert run.text.startswith(f"Okay, I think I have finished thinking.\n{END_THINK}\n\n")
    assert run.report["answer"]


@pytest.mark.parametrize("ignore", [0, 1, 2])
def test_s1_drops_the_end_of_the_thinking_and_writes_wait(solve, ignore):
    bare, run = solve(Vanilla()), solve(S1(ignore=ignore))
    dropped = [step for step in run.episode.steps if step.discarded]
    assert [step.text for step in dropped] == [END_THINK] * ignore
    waits = [step for step in run.thoughts if step.provenance[0][0] == "inserted"]
    assert len(waits) == ignore and all(step.text.startswith("Wait") for step in waits)
    assert run.text.count(END_THINK) == 1
    assert run.thinking.startswith(bare.thinking) and (run.thinking == bare.thinking) == (ignore == 0)


def test_s1_forces_the_answer_at_its_budget(solve):
    run = solve(S1(), max_tokens=40)
    assert sum(len(step.ids) for step in run.thoughts) == 40
    assert f"\n{END_THINK}\n\nFinal Answer:" in run.text
    assert run.report["stop_reason"] == "token_budget" and run.report["answer"]


@pytest.mark.parametrize("problem", [0, 1, 2])
def test_deer_stops_at_the_first_trial_answer_above_its_threshold(solve, problem):
    run = solve(Deer(words=TURNS), problem)
    sure = [sum(trial(probe)) / len(trial(probe)) > 0.95 for probe in run.probes]
    assert run.probes and sure[:-1] == [False] * (len(sure) - 1)
    assert sure[-1] == (run.report["stop_reason"] == "early_stop")
    if sure[-1]:
        assert f"\n{END_THINK}\n\n" in run.text
        # The turn that was begun is taken back, and the trial stands where it began.
        last = run.probes[-1]
        assert run.thoughts[-1].start + len(run.thoughts[-1].ids) == last.start
        assert not run.thinking.rstrip().endswith(TURNS)


def test_deer_that_is_never_sure_asks_so_often_and_leaves_the_model_alone(solve, engine):
    problem = "Solve for u: 11*u - 22 = 143"  # the model turns twice there
    bare, run = solve(Vanilla(), problem), solve(Deer(words=TURNS, threshold=1.1, max_checks=2), problem)
    longest = len(engine.codec.encode(Deer().trial)) + Deer().trial_tokens
    assert len(run.probes) == 2 and all(len(probe.ids) <= longest for probe in run.probes)
    assert run.text == bare.text and run.report["stop_reason"] == "finished"
    assert len(solve(Deer(words=TURNS, threshold=1.1, max_checks=1), problem).probes) == 1
    assert run.report["usage"]["output"] == bare.report["usage"]["output"] + sum(len(p.ids) for p in run.probes)


def test_geometric_mean_of_deer_is_never_above_the_arithmetic(solve):
    arithmetic, geometric = Deer(words=TURNS, threshold=1.1), Deer(words=TURNS, threshold=1.1, mean="geometric")
    for probe in solve(arithmetic, 2).probes:
        numbers = trial(probe)
        assert math.prod(numbers) ** (1 / len(numbers)) <= sum(numbers) / len(numbers) + 1e-9
    assert solve(geometric, 2).text == solve(arithmetic, 2).text


def test_dynasor_asks_every_64_tokens_and_ends_on_equal_certain_answers():
    """Scripted, a character a token: what the probes say is known."""
    answers = iter(["", "7} wait", "6}", "7}", "7}", "7.0}", "9}"])

    def think(text: str) -> str:
        return next(answers) + "\n\n" if text.endswith("\\boxed{") else "thinking and thinking"

    from nr_agent.graphs.baseline import create_baseline

    store = EpisodeStore.in_memory()
    graph = create_baseline(ScriptedEngine(think), Dynasor(), store=store)
    report = graph.invoke({"messages": [("user", "?")]})["reasoning"]
    episode = store.get(report["episode_id"])
    probes = [step for step in episode.steps if step.branch.startswith("probe")]
    first = episode.steps[1].start
    assert [probe.start - first for probe in probes] == [64, 128, 192, 256, 320, 384]
    assert report["answer"] == "7.0" and report["stop_reason"] == "early_stop"
    assert episode.kept[-1].text.endswith(
        "Oh, I have got the answer to the whole problem\n**Final Answer:**\n\\[\n \\boxed{7.0}\n\\]"
    )


@pytest.mark.parametrize("problem", [0, 2])
def test_dynasor_on_the_model_ends_only_on_three_equal_answers(solve, problem):
    run = solve(Dynasor(chunk=16), problem)
    said = [boxed(probe.text.split("\\boxed{")[1]) for probe in run.probes]
    agreed = [len(set(said[at - 2 : at + 1])) == 1 and said[at] for at in range(2, len(said))]
    assert run.report["stop_reason"] in ("finished", "early_stop")
    assert [bool(one) for one in agreed] == [False] * (len(agreed) - 1) + [run.report["stop_reason"] == "early_stop"]


@pytest.mark.parametrize("problem", [0, 1])
def test_nowait_never_writes_a_banned_word(solve, engine, problem):
    banned = set(word_ids(engine.codec, NoWait().words))
    bare, run = solve(Vanilla(), problem, sampling=WARM, seed=9), solve(NoWait(), problem, sampling=WARM, seed=9)
    assert banned & {token for step in bare.thoughts for token in step.ids}
    assert not banned & {token for step in run.thoughts for token in step.ids}


def test_words_that_merely_contain_a_banned_one_may_be_written(engine):
    banned = [engine.codec.decode([token]).strip().lower() for token in word_ids(engine.codec, NoWait().words)]
    assert {"wait", "again", "check", "any"} <= set(banned) <= set(NoWait().words)


@pytest.mark.parametrize("problem", [0, 1, 2])
def test_thinkbrake_ends_at_a_sentence_whose_next_token_is_almost_the_closing(solve, problem):
    bare, run = solve(Vanilla(), problem), solve(ThinkBrake(margin=4.0), problem)
    assert bare.thinking.startswith(run.thinking)
    assert solve(ThinkBrake(margin=-1.0), problem).thinking == bare.thinking
    if run.thinking != bare.thinking:
        assert run.report["stop_reason"] == "early_stop" and run.thinking[-1] in ".?!\n"
        assert run.report["usage"]["discarded"] == 0


def test_thinkbrake_brakes_somewhere(solve):
    assert any(solve(ThinkBrake(margin=4.0), n).report["stop_reason"] == "early_stop" for n in range(3))


def test_thinkbrake_needs_a_closing_token(solve):
    with pytest.raises(ConfigurationError, match="thinkbrake weighs"):
        solve(ThinkBrake(), thinker=ScriptedEngine(["a"], missing=[END_THINK]))


@pytest.mark.parametrize("problem", [0, 1])
def test_answer_convergence_ends_when_the_last_answers_are_equal(solve, problem):
    run = solve(AnswerConvergence(agree=3), problem)
    said = [boxed(probe.text.split("\\boxed{")[1]) for probe in run.probes]
    assert [(done["kind"], done["policy"]) for done in run.report["interventions"]] == [("stop", "answer_convergence")]
    assert len(set(said[-3:])) == 1 and said[-1]
    assert all(len(set(said[at : at + 3])) > 1 or not said[at] for at in range(len(said) - 3))
    assert len(run.probes) == sum(bool(step.text.strip()) for step in run.thoughts)


def test_self_consistency_takes_the_answer_of_most_samples(solve):
    run = solve(SelfConsistency(samples=5), sampling=Sampling(temperature=0.8), seed=11)
    lines = {step.branch for step in run.episode.steps}
    assert lines == {"main", "sample-1", "sample-2", "sample-3", "sample-4"}
    texts = {name: "".join(s.text for s in run.episode.steps if s.branch == name) for name in lines}
    answers = [boxed(text.split("\\boxed{")[1]) for text in texts.values()]
    assert answers.count(run.report["answer"]) == max(map(answers.count, answers))
    assert len(set(texts.values())) > 1
    kept = {step.branch for step in run.episode.kept if step.kind != "prompt"}
    assert len(kept) == 1


def test_self_consistency_wants_samples_that_differ(solve):
    with pytest.raises(ConfigurationError, match="raise the temperature"):
        solve(SelfConsistency())


@pytest.mark.parametrize(("critiques", "answer", "turns"), [(1, "2", 4), (0, "1", 2), (9, "4", 7)])
def test_self_refine_answers_again_until_the_model_is_satisfied(solve, critiques, answer, turns):
    def write(text: str) -> str:
        asked = text.count("There may be an error")
        if text.count("rewrite") < asked:
            return "There is a slip." if asked <= critiques else "Checked: it is correct."
        return f"\\boxed{{{asked + 1}}}"

    run = solve(SelfRefine(), "?", thinker=ScriptedEngine(lambda _: None, answer=write))
    assert run.report["answer"] == answer
    assert sum(step.kind == "prompt" for step in run.episode.steps) == turns
    assert run.episode.kept[0].kind == "prompt" and "There may be" not in run.episode.kept[-1].text


def test_self_refine_runs_on_the_model(solve):
    run = solve(SelfRefine(rounds=1), 1)
    assert sum(step.kind == "prompt" for step in run.episode.steps) in (2, 3)
    assert run.report["answer"]


@pytest.mark.parametrize("baseline", [Vanilla(), Deer(words=TURNS), Dynasor(chunk=16), AnswerConvergence()])
def test_budget_ends_any_baseline_with_an_answer(solve, baseline):
    run = solve(baseline, max_tokens=30)
    assert sum(len(step.ids) for step in run.thoughts) <= 30
    assert run.report["stop_reason"] in ("token_budget", "early_stop") and run.report["answer"]


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        ("12", "12.0", True),
        ("1/2", "0.5", True),
        ("$1,000$", "1000", True),
        ("x", " X.", True),
        ("1", "2", False),
        ("5+3*2", "2*3+5", True),
        ("5+3", "5-3", False),
    ],
)
def test_answers_are_compared_in_value(first, second, equal):
    assert same_answer(first, second) is equal


@pytest.mark.parametrize(
    ("text", "inside"), [("4} and", "4"), (r"\frac{1}{2}}", r"\frac{1}{2}"), ("never closed", ""), ("}", "")]
)
def test_box_ends_at_its_own_brace(text, inside):
    assert boxed(text) == inside


def test_doubt_is_a_whole_word():
    assert says("Hmm, no.", Dynasor().doubts) and not says("I know now", Dynasor().doubts)
    assert STEP_END == "\n\n"
