"""A data set through one reasoner, several problems at a time: the engine thinks about them together.

python examples/batch.py
"""

from nr_agent import EpisodeStore, create_reasoner
from nr_agent.graphs import Budget

NUMBERS = [(3, 5, 4), (12, 7, 7), (9, 2, 8), (4, 6, 9)]
DATA = [(f"Solve for x: {a}*x + {b} = {a * x + b}", str(x)) for a, b, x in NUMBERS]


def main() -> None:
    """Solve them, score them, and find the episodes again."""
    store = EpisodeStore.in_memory()
    reasoner = create_reasoner("nano", store=store, budget=Budget(max_tokens=400))
    inputs = [{"messages": [{"role": "user", "content": problem}]} for problem, _ in DATA]
    # What is known about a problem travels with it; `reference` scores the episode.
    configs = [{"configurable": {"nr_agent": {"reference": right, "domain": "math"}}} for _, right in DATA]
    outputs = reasoner.batch(inputs, configs)
    for (problem, right), output in zip(DATA, outputs, strict=True):
        report = output["reasoning"]
        print(f"{problem}: answer {report['answer']}, right is {right}, {report['usage']['output']} tokens")
    solved = sum(summary.correct is True for summary in store.find())
    print(f"{solved} of {len(DATA)} are right")


if __name__ == "__main__":
    main()
