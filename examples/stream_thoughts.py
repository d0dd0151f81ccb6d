"""Thoughts in the terminal as they come, from the chat model; then the answer and what it cost.

python examples/stream_thoughts.py
"""

from nr_agent import ChatNeuReasoner


def main() -> None:
    """Ask one question and show everything."""
    chat = ChatNeuReasoner(model="nano", seed=3)
    question = "State the final answer to the following arithmetic problem: 412 - 961 + 57 - 8 ="
    whole = None
    for chunk in chat.stream(question):
        print(chunk.additional_kwargs.get("reasoning_content", ""), end="", flush=True)
        if chunk.content:
            print(f"\n\nanswer: {chunk.content}")
        whole = chunk if whole is None else whole + chunk
    usage, facts = whole.usage_metadata, whole.response_metadata["nr_agent"]
    print(f"{usage['output_tokens']} tokens, {usage['output_token_details']['reasoning']} of them in thought")
    for event in facts["events"]:
        print(f"seen: {event['kind']} at step {event['step']}, score {event['score']:.2f}")
    chat.close()


if __name__ == "__main__":
    main()
