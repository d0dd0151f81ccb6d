"""A supervisor that hands hard problems to a reasoner, which is one of its tools.

The supervisor's own model is scripted here, so that the example runs anywhere: put yours in its place.

    python examples/supervisor.py
"""

import json

from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from nr_agent import ChatNeuReasoner, as_tool, create_reasoner
from nr_agent.testing import ScriptedEngine

PROBLEM = "Solve for x: 12*x + 7 = 91"


def write(text: str) -> str:
    """What the supervisor's model says next: it delegates, and then reports."""
    if "<tool_response>" not in text:
        call = {"name": "solve_equation", "arguments": {"question": PROBLEM}}
        return f"<tool_call>\n{json.dumps(call)}\n</tool_call>"
    return f"My mathematician's answer is {text.split('<tool_response>')[1].split()[0]}."


def main() -> None:
    """Delegate one problem."""
    tool = as_tool(create_reasoner("nano"), name="solve_equation", description="Solves a linear equation.")
    chat = ChatNeuReasoner(engine=ScriptedEngine(["This is for the mathematician."], answer=write, tools=True))
    model = chat.bind_tools([tool])

    graph = StateGraph(MessagesState)
    graph.add_node("supervise", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", ToolNode([tool]))
    graph.add_edge(START, "supervise")
    graph.add_conditional_edges("supervise", tools_condition, ["tools", END])
    graph.add_edge("tools", "supervise")
    messages = graph.compile().invoke({"messages": [("user", PROBLEM)]})["messages"]
    report = messages[2].artifact
    print(f"the tool: {messages[2].content}, ended by {report['stop_reason']}, {report['usage']['output']} tokens")
    print(f"the supervisor: {messages[-1].content}")


if __name__ == "__main__":
    main()
