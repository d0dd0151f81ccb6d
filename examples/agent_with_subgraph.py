"""An agent that looks things up with a tool, and thinks with a reasoner that is a node of its graph.

The agent's own model is scripted here, so that the example runs anywhere: put yours in its place.

    python examples/agent_with_subgraph.py
"""

import json

from langchain_core.messages import HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from nr_agent import ChatNeuReasoner, create_reasoner
from nr_agent.testing import ScriptedEngine


def look_up_price(item: str) -> str:
    """The price of an item, in cents."""
    return {"pen": "12", "box": "7"}[item]


def write(text: str) -> str:
    """What the agent's model says next: two calls, and then the problem that they lead to."""
    if "<tool_response>" not in text:
        calls = [{"name": "look_up_price", "arguments": {"item": item}} for item in ("pen", "box")]
        return "\n".join(f"<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in calls)
    pen, box = (part.split("\n")[1] for part in text.split("<tool_response>")[1:])
    return f"Solve for x: {pen}*x + {box} = 91"


def main() -> None:
    """How many pens come in a box that costs 91 cents?"""
    agent = ChatNeuReasoner(engine=ScriptedEngine(["I need the prices."], answer=write, tools=True))
    model = agent.bind_tools([look_up_price])

    def decide(state: MessagesState) -> dict:
        return {"messages": [model.invoke(state["messages"])]}

    def pose(state: MessagesState) -> dict:
        return {"messages": [HumanMessage(state["messages"][-1].content)]}

    graph = StateGraph(MessagesState)
    graph.add_node("decide", decide)
    graph.add_node("tools", ToolNode([look_up_price]))
    graph.add_node("pose", pose)
    graph.add_node("reason", create_reasoner("nano"))
    graph.add_edge(START, "decide")
    graph.add_conditional_edges(
        "decide", lambda state: "tools" if state["messages"][-1].tool_calls else "pose", ["tools", "pose"]
    )
    graph.add_edge("tools", "decide")
    graph.add_edge("pose", "reason")
    graph.add_edge("reason", END)
    question = "A box with pens costs 91 cents. How many pens are in it?"
    for message in graph.compile().invoke({"messages": [("user", question)]})["messages"]:
        calls = (
            "".join(f" {call['name']}({call['args']})" for call in message.tool_calls) if message.type == "ai" else ""
        )
        print(f"{message.type}: {message.content}{calls}")
    print("That is the answer.")


if __name__ == "__main__":
    main()
