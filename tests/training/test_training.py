import itertools
import random

import pytest
import torch

from nr_agent.detection.traces import Traced, TracedStep
from nr_agent.episode import Problem
from nr_agent.errors import ConfigurationError
from nr_agent.tasks import FAMILIES, draw, held_out
from nr_agent.tokens import BRANCH, IN_DETAIL, RECHECK, REDO
from nr_agent.training.corpus import IGNORED, Corpus, Example, encode_trace
from nr_agent.training.own_failures import own_examples
from nr_agent.training.pretrain import Phase, PretrainSettings, build_model, pretrain
from nr_agent.training.traces import Habits, teach
from nr_agent.training.trigger_sft import SftSettings, _draw, planted_example, trigger_sft


def test_a_batch_is_a_function_of_its_seed_and_number(tokenizer):
    weights = dict.fromkeys(FAMILIES, 1.0)
    first, again = (Corpus(tokenizer, seed=3).batch(7, 2000, weights) for _ in range(2))
    other = Corpus(tokenizer, seed=4).batch(7, 2000, weights)
    assert all(torch.equal(x, y) for one, two in zip(first, again, strict=True) for x, y in zip(one, two, strict=True))
    assert first[0].ids.shape != other[0].ids.shape or not torch.equal(first[0].ids, other[0].ids)


def test_a_batch_holds_whole_examples_of_like_length_and_counts_nothing_that_fills_up(tokenizer):
    corpus = Corpus(tokenizer, longest=400, seed=1)
    parts = corpus.batch(0, 3000, dict.fromkeys(FAMILIES, 1.0))
    lengths = [sorted((part.ids != tokenizer.pad_token_id).sum(1).tolist()) for part in parts]
    assert sum(map(sum, lengths)) >= 3000
    assert all(before[-1] <= after[0] for before, after in itertools.pairwise(lengths))
    for part in parts:
        filled = part.ids == tokenizer.pad_token_id
        assert part.ids.shape[1] % 64 == 0
        assert (part.labels[filled] == IGNORED).all() and (part.tells[filled] == IGNORED).all()
        ends = [row[row != tokenizer.pad_token_id][-1].item() for row in part.ids]
        assert set(ends) == {tokenizer.eos_token_id}


def test_the_models_own_traces_are_drawn_by_their_share(tokenizer):
    own = Example([5, 6, 7], [IGNORED] * 3, [(1, 0, IGNORED)] * 3)
    parts = Corpus(tokenizer, seed=1).batch(0, 6000, dict.fromkeys(FAMILIES, 1.0), [own], 0.5)
    rows = [row for part in parts for row in part.ids.tolist()]
    drawn = sum(row[:3] == own.ids for row in rows)
    assert 0.3 < drawn / len(rows) < 0.7


def test_the_problem_and_planted_slips_do_not_count_in_the_loss(tokenizer):
    problem = draw("chain_sum", 3)
    trace = teach("chain_sum", problem.text, random.Random(1), Habits(slip=1.0, astray=0.0, stopped=0.0, careful=0.0))
    ids, labels, _ = encode_trace(tokenizer, problem.text, trace)
    trained = tokenizer.decode([label for label in labels if label != IGNORED])
    assert problem.text not in trained
    assert trained.endswith("</think>\n\nThe final answer is \\boxed{" + trace.answer + "}<|im_end|>")
    wrong = ["".join(span.text for span in step if not span.trained) for step in trace.steps]
    wrong = [text for text in wrong if text]
    assert wrong
    assert tokenizer.decode(ids).count("\n\n") > tokenizer.decode(ids).count(f"={wrong[0]}\n\n") > 0
    assert f"={wrong[0]}\n\n" not in trained


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(tmp_path):
    settings = PretrainSettings(
        size="tiny", phases=(Phase(4, 3e-3), Phase(2, 1e-3)), tokens=600, save_every=3, own_at=(2, 4), own_problems=1
    )
    whole = pretrain(tmp_path / "whole", settings, log=lambda _: None)

    class InterruptedRunError(Exception):
        pass

    def interrupt(line: str) -> None:
        raise InterruptedRunError

    # The first checkpoint is written after step 3; the run is cut right behind it.
    import nr_agent.training.pretrain as module

    save = module.save_file
    try:
        module.save_file = lambda *args: (save(*args), interrupt(""))
        with pytest.raises(InterruptedRunError):
            pretrain(tmp_path / "cut", settings, log=lambda _: None)
    finally:
        module.save_file = save
    resumed = pretrain(tmp_path / "cut", settings, log=lambda _: None)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)

    with pytest.raises(ConfigurationError, match="other settings"):
        pretrain(tmp_path / "cut", PretrainSettings(size="tiny", phases=(Phase(7, 3e-3),)), log=lambda _: None)


def test_a_run_can_go_on_from_a_model_with_the_last_phase_alone(tmp_path):
    settings = PretrainSettings(
        size="tiny", phases=(Phase(3, 3e-3), Phase(2, 1e-9, warmup=1)), tokens=600, own_at=(2,), own_problems=1
    )
    before = pretrain(tmp_path / "first", settings, log=lambda _: None)
    begun = str(tmp_path / "first" / "model")
    told = []
    after = pretrain(tmp_path / "second", settings.going_on(begun), log=told.append)
    # At such a rate nothing moves but by the rounding of what was saved.
    for a, b in zip(before.parameters(), after.parameters(), strict=True):
        assert torch.allclose(a.to(torch.bfloat16).float(), b, atol=1e-6)
    assert sum(line.startswith("sampling own traces") for line in told) == 2
    assert (tmp_path / "second" / "own-0.jsonl").exists()
    with pytest.raises(ConfigurationError, match="does not fit into this size by its head_dim 16"):
        pretrain(tmp_path / "third", PretrainSettings(start=begun), log=lambda _: None)


def test_a_trigger_is_never_trained_and_its_remedy_is(tokenizer):
    trigger = tokenizer.convert_tokens_to_ids(RECHECK)
    example = None
    rng = random.Random(2)
    while example is None:
        example = planted_example(tokenizer, "products", rng)
    ids, labels, _ = example
    places = [i for i, token in enumerate(ids) if token == trigger]
    assert places
    for place in places:
        # Either way the words that are inserted with the token are not trained either.
        words = REDO if tokenizer.decode(ids[place + 1 :]).startswith(REDO) else IN_DETAIL
        assert tokenizer.decode(ids[place + 1 :]).startswith(words)
        behind = len(tokenizer.encode(words, add_special_tokens=False))
        assert labels[place : place + 1 + behind] == [IGNORED] * (1 + behind)
        assert labels[place + 1 + behind] != IGNORED
    assert trigger not in labels


def test_the_models_own_slip_is_answered_by_a_right_calculation(tokenizer):
    # Of what kind it is nobody knows, so no number comes from nowhere.
    problem = next(Problem(text=f"Sums {n}") for n in range(100) if not held_out(f"Sums {n}"))
    prompt = tokenizer.encode(problem.text)
    step = tokenizer.encode("12+35=48\n\n")
    traced = Traced(
        problem,
        0,
        [*prompt, *step],
        [TracedStep(len(prompt), len(prompt) + len(step), "12+35=48\n\n", [0.0] * len(step), [0.0] * len(step), "48")],
        answer="48",
    )
    (example,) = own_examples(tokenizer, [traced])[:1]
    remedy = tokenizer.decode([label for label in example[1] if label != IGNORED])
    assert remedy.startswith("2+5=7, 1+3=4. So 12+35=47, not what I had\n\n")
    assert tokenizer.decode(example[0]).count(f"{RECHECK}Let me redo that: 2+5=7") == 1


def test_as_many_sound_steps_as_slips_are_rechecked_and_half_of_them_are_those_it_was_least_sure_of(tokenizer):
    # Of what kind it is nobody knows, so no number comes from nowhere.
    problem = next(Problem(text=f"Sums {n}") for n in range(100) if not held_out(f"Sums {n}"))

    def trace(text: str, logprob: float) -> Traced:
        prompt, step = tokenizer.encode(problem.text), tokenizer.encode(text)
        placed = TracedStep(len(prompt), len(prompt) + len(step), text, [logprob] * len(step), [0.0] * len(step))
        return Traced(problem, 0, [*prompt, *step], [placed])

    wrong = [trace(f"12+{number}=99\n\n", -0.1) for number in range(20, 30)]
    sure = [trace(f"12+{number}={12 + number}\n\n", -0.1) for number in range(30, 60)]
    unsure = [trace(f"12+{number}={12 + number}\n\n", -2.0) for number in range(60, 65)]
    remedies = [
        tokenizer.decode([label for label in labels if label != IGNORED])
        for _, labels, _ in own_examples(tokenizer, [*sure, *wrong, *unsure])
    ]
    corrected = [text for text in remedies if ", not what I had\n\n" in text]
    confirmed = [text for text in remedies if ", as I had\n\n" in text]
    assert (len(corrected), len(confirmed)) == (10, 10)
    assert sum(any(f"So 12+{number}=" in text for number in range(60, 65)) for text in confirmed) == 5


def test_without_steps_of_its_own_a_model_still_meets_triggers(tokenizer):
    rng, drawn = random.Random(0), list[int]()
    for _ in range(60):
        drawn += _draw(rng, tokenizer, [], [], list(FAMILIES), SftSettings()).ids
    met = {token: drawn.count(tokenizer.convert_tokens_to_ids(token)) for token in (RECHECK, BRANCH)}
    assert met[RECHECK] > 20 and met[BRANCH] > 2, met


def test_trigger_sft_lowers_the_loss_on_what_it_teaches(tokenizer):
    torch.manual_seed(0)
    model = build_model("tiny", tokenizer)
    losses: list[float] = []
    settings = SftSettings(steps=50, tokens=1280, learning_rate=3e-3)
    trigger_sft(model, tokenizer, [], list(FAMILIES), settings, log=lambda line: losses.append(float(line.split()[-1])))
    assert losses[-1] < losses[0]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # PEFT asks for it
def test_trigger_sft_with_lora_gives_back_a_plain_model_with_the_triggers_rows_trained(tokenizer):
    pytest.importorskip("peft", reason="peft is not installed (pip install 'nr-agent[train]')")
    torch.manual_seed(0)
    model = build_model("tiny", tokenizer)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    losses: list[float] = []
    settings = SftSettings(steps=50, tokens=1280, learning_rate=1e-2, method="lora", rank=4)
    trained = trigger_sft(
        model, tokenizer, [], list(FAMILIES), settings, log=lambda line: losses.append(float(line.split()[-1]))
    )
    assert losses[-1] < losses[0]
    after = trained.state_dict()
    assert after.keys() == before.keys()
    recheck = tokenizer.convert_tokens_to_ids(RECHECK)
    rows = next(weight for name, weight in after.items() if name.endswith("embed_tokens.weight"))
    old = next(weight for name, weight in before.items() if name.endswith("embed_tokens.weight"))
    changed = (rows != old).any(dim=1)
    assert changed[recheck]
    assert int(changed.sum()) == 2  # the correction tokens' rows and no other
    assert any("proj" in name and not torch.equal(weight, before[name]) for name, weight in after.items())
