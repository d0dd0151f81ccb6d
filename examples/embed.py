"""A reasoner as a node of another graph, and as a tool.

python examples/embed.py
"""

from langgraph.graph import END, START, MessagesState, StateGraph

from nr_agent import as_tool, create_reasoner

PROBLEM = "Find the value of x in the equation: 12*x + 7 = 91"


def main() -> None:
    """Solve one problem both ways."""
    reasoner = create_reasoner("nano")

    parent = StateGraph(MessagesState)
    parent.add_node("reason", reasoner)
    parent.add_edge(START, "reason")
    parent.add_edge("reason", END)
    graph = parent.compile()
    # `subgraphs=True` lets the reasoner's own events through.
    for part in graph.stream(
        {"messages": [{"role": "user", "content": PROBLEM}]}, stream_mode="custom", subgraphs=True, version="v2"
    ):
        event = part["data"]
        if event["type"] == "nr.step":
            print("".join(piece["text"] for piece in event["parts"]).strip())
        elif event["type"] == "nr.stop":
            print(f"answer: {event['report']['answer']}")

    tool = as_tool(reasoner, name="solve_equation", description="Solves a linear equation.")
    print(f"as a tool: {tool.invoke({'question': PROBLEM})}")


if __name__ == "__main__":
    main()
