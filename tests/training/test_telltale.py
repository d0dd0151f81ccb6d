import random

import pytest
import torch
from accelerate import Accelerator

from nr_agent.detection.traces import Traced, TracedStep
from nr_agent.episode import Problem
from nr_agent.events import LEVELS
from nr_agent.tasks import FAMILIES, draw
from nr_agent.tokens import IN_DETAIL, RECHECK
from nr_agent.training.corpus import IGNORED, Corpus, batches, encode_trace
from nr_agent.training.learner import Learner
from nr_agent.training.own_careful import careful_examples, careful_step
from nr_agent.training.own_tells import told_example
from nr_agent.training.pretrain import build_model
from nr_agent.training.telltale import Telltale, last_tokens
from nr_agent.training.traces import Habits, teach

EVEN = dict.fromkeys(FAMILIES, 1.0)
SUM = "State the final answer to the following arithmetic problem: 12 + 35 + 40 ="
DIVISOR = "Find the Greatest Common Divisor (GCD) of these numbers: 384, 46. Give only the GCD as your final answer."
SEARCH = "Find a way to make 31 using all of these numbers: 4, 7, 3.\nFinal answer format instructions: none"


def thought(tokenizer, *texts, problem=SUM, task="chain_sum", answer="87"):
    ids = tokenizer.encode(problem)
    steps = []
    for text in texts:
        piece = tokenizer.encode(text + "\n\n")
        steps.append(
            TracedStep(len(ids), len(ids) + len(piece), text + "\n\n", [-0.1] * len(piece), [0.1] * len(piece))
        )
        ids = [*ids, *piece]
    return Traced(Problem(text=problem, task=task), 0, ids, steps, answer=answer)


def step_end(tokenizer):
    (token,) = tokenizer.encode("\n\n")
    return token


def test_a_planted_slip_is_told_from_its_first_wrong_token_to_the_end_of_its_step(tokenizer):
    problem = draw("products", 3)
    trace = teach("products", problem.text, random.Random(4), Habits(slip=0.5, astray=0.0, careful=0.0))
    example = encode_trace(tokenizer, problem.text, trace)
    text = ""
    for token, tells in zip(example.ids, example.tells, strict=True):
        text += tokenizer.decode([token]) if tells[0] == 1 else "|"
    told = [piece for piece in text.split("|") if piece]
    wrong = ["".join(span.text for span in step if span.wrong) for step in trace.steps]
    wrong = [piece for piece in wrong if piece]
    assert wrong
    assert told == wrong


def test_the_models_own_slip_is_told_from_the_first_digit_that_is_wrong(tokenizer):
    traced = thought(tokenizer, "12+35=48", "48+40=88", "So the answer is 88.", answer="88")
    told = told_example(tokenizer, traced)
    first = traced.steps[0]
    tells = [tells[0] for tells in told.tells[first.start : first.end]]
    assert tells == [0] * (len(tells) - 2) + [1, IGNORED]  # 4 is right, 8 is not, and nothing is told at the blank line
    assert all(tells[0] in (0, IGNORED) for tells in told.tells[traced.steps[1].start :])
    assert set(told.labels) == {IGNORED}


def test_a_wrong_comparison_is_told_from_its_sign(tokenizer):
    traced = thought(tokenizer, "First 384<46: 384, 46: 46*8=368", problem=DIVISOR, task="gcd")
    told = told_example(tokenizer, traced)
    first = traced.steps[0]
    shown = [place for place in range(first.start, first.end) if told.tells[place][0] == 1]
    assert tokenizer.decode(told.ids[shown[0] : first.end]) == "<46: 384, 46: 46*8=368\n\n"


def test_what_repeats_and_what_is_known_is_told_at_the_end_of_steps(tokenizer):
    traced = thought(tokenizer, "12+35=47", "12+35=47", "47+40=87", "So the answer is 87.", "12+35=47")
    told = told_example(tokenizer, traced)
    ends = [told.tells[step.end - 2] for step in traced.steps]
    assert [end[1] for end in ends] == [0, 1, 0, 0, 0]
    assert [end[2] for end in ends] == [0, 0, IGNORED, 1, 1]


def test_telltale_neurons_learn_to_tell_and_the_language_is_learned_beside_them(tokenizer):
    torch.manual_seed(0)
    model = build_model("tiny", tokenizer)
    telltale = Telltale(model)
    learner = Learner(model, telltale, Accelerator(), precision="fp32")
    weights = [*model.parameters(), *telltale.parameters()]
    optimizer = torch.optim.AdamW(weights, 5e-3)
    corpus = Corpus(tokenizer, longest=300, habits=Habits(slip=0.3, repeat=0.2))
    losses = []
    for step in range(120):
        losses.append(learner.learn(corpus.batch(step, 1200, EVEN), step_end(tokenizer)))
        optimizer.step()
        optimizer.zero_grad()
    first, last = torch.stack(losses[:5]).mean(0), torch.stack(losses[-5:]).mean(0)
    assert last[0] < 0.8 * first[0]
    assert last[1] < 0.6 * first[1]
    rng = random.Random(9)
    unseen = []
    for seed in range(500, 560):
        problem = draw("chain_sum", seed)
        unseen.append(encode_trace(tokenizer, problem.text, teach("chain_sum", problem.text, rng)))
    told = learner.told_of(unseen, tokenizer)
    assert set(told) == set(LEVELS)
    assert told["instance"] > 0.8


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_batch_in_parts_has_the_gradients_of_the_models_own_loss(tokenizer, precision):
    torch.manual_seed(0)
    model = build_model("tiny", tokenizer)
    parts = Corpus(tokenizer, longest=300).batch(0, 1500, EVEN)
    losses = Learner(model, None, Accelerator(), precision=precision).learn(parts, step_end(tokenizer))
    ours = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    model.zero_grad()
    counted = sum(int((part.labels != IGNORED).sum()) for part in parts)
    for part in parts:
        share = int((part.labels != IGNORED).sum()) / counted
        (share * model(input_ids=part.ids, labels=part.labels, use_cache=False).loss).backward()
    theirs = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    assert losses[1] == 0
    if precision == "fp32":
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)
    else:
        assert torch.nn.functional.cosine_similarity(ours, theirs, dim=0) > 0.99


def test_the_end_of_a_step_is_the_token_before_the_blank_line(tokenizer):
    ids = torch.tensor([tokenizer.encode("1+1=2\n\n2+2=4\n\n")])
    ends = last_tokens(ids, step_end(tokenizer))[0].nonzero().flatten().tolist()
    assert [tokenizer.decode([int(ids[0, place])]) for place in ends] == ["2", "4"]


@pytest.mark.parametrize(
    ("text", "slipped", "careful"),
    [
        ("12+35=48", True, "12+35: 2+5=7, 1+3=4. So 12+35=47"),
        ("Now 12+35=47", False, "12+35: 2+5=7, 1+3=4. So 12+35=47"),
        ("12+25=37", True, "12+35: 2+5=7, 1+3=4. So 12+35=47"),
        ("So the answer is 87.", False, None),
        ("Wait, let me redo that: 2+5=7. So 12+35=57, not what I had", True, None),
    ],
)
def test_a_step_taken_back_is_answered_by_the_right_one_worked_out(tokenizer, text, slipped, careful):
    traced = thought(tokenizer, text)
    assert careful_step(traced, 0, slipped, True, random.Random(0)) == careful


def test_both_calculations_of_an_attempt_are_named_before_they_are_worked_out(tokenizer):
    traced = thought(tokenizer, "Try 4*7=27, 27+3=30. Not 31.", problem=SEARCH, task="countdown")
    careful = "4*7: 7*4=28, 28+3: 8+3=11, 2+0+1=3. So 4*7=28, 28+3=31. That is 31."
    assert careful_step(traced, 0, True, True, random.Random(0)) == careful


def test_a_careful_step_stands_in_the_place_of_the_slip_and_is_gone_on_from(tokenizer):
    traced = thought(tokenizer, "12+35=48", "48+40=88", "So the answer is 88.", answer="88")
    examples = careful_examples(tokenizer, [traced])
    texts = [tokenizer.decode(example.ids).removeprefix(SUM) for example in examples]
    assert f"{RECHECK}{IN_DETAIL}12+35: 2+5=7, 1+3=4. So 12+35=47\n\n47+40=87\n\n" in texts
    assert all("48" not in tokenizer.decode([t for t in example.labels if t != IGNORED]) for example in examples[:1])


def test_examples_of_any_length_come_in_few_shapes(tokenizer):
    rng = random.Random(0)

    def example():
        problem = draw("gcd", rng.randrange(1000))
        return encode_trace(tokenizer, problem.text, teach("gcd", problem.text, rng))

    shapes = {part.ids.shape[1] for _ in range(5) for part in batches(example, 3000, tokenizer.pad_token_id)}
    assert all(length % 64 == 0 for length in shapes)


DIFFERENCE = "14-8=6, 8-6-1=1, 3-3=0"
EIGHT = f"2*46=92, 4*46=184, 8*46=368, 16*46=736>384, 384-368: {DIFFERENCE}, 384-368=16, 184>16, 92>16, 46>16"
ROUND = f"3>0, 384>46: 384, 46: 384/46: {EIGHT}. So 46*8=368"
TWO = "46/16: 2*16=32, 4*16=64>46, 46-32=14, 16>14"


@pytest.mark.parametrize(
    ("steps", "slipped", "careful"),
    [
        (["46*9=414"], True, ROUND),
        (["46*8=358"], True, ROUND),
        (["46*8=368", "384-368=16", "46*3=138"], True, f"4>1, 46>16: 46, 16: {TWO}. So 16*2=32"),
        (["46*8=368"], False, ROUND),
        (["46*8=368", "384-358=26"], True, f"384-368: 3=3, 8>6, {DIFFERENCE}. So 384-368=16"),
        (["384, 46: 46*8=358"], True, ROUND),
        (["First 384<46: 46, 384: 46-384=-338"], True, ROUND),
        # Too little was taken away: what is left is larger, and is compared as it stands.
        (
            ["46*7=322", "384-322=62", "46, 62: 46*2=92"],
            True,
            "4<6, 46<62: 62, 46: 62/46: 2*46=92>62, 1*46=46, 62-46=16. So 62-46=16",
        ),
        (["46*8=368", "384-368=16", "16, 46: 16-46=30"], True, f"4>1, 46>16: 46, 16: {TWO}. So 16*2=32"),
    ],
)
def test_a_multiple_is_looked_for_by_doubling_where_it_was_wrong(tokenizer, steps, slipped, careful):
    traced = thought(tokenizer, *steps, problem=DIVISOR, task="gcd")
    assert careful_step(traced, len(steps) - 1, slipped, True, random.Random(0)) == careful
