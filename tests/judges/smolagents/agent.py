"""smolagents' code agent on its own E2B executor, with a model that speaks from a script."""

import json

from smolagents import CodeAgent, Model, tool
from smolagents.models import ChatMessage, MessageRole

SCRIPT = [
    "Thought: I look first.\n<code>\nnumbers = [3, 1, 4, 1, 5]\nprint(sum(numbers))\n</code>",
    "Thought: the tool helps.\n<code>\nfinal_answer(double(sum(numbers)) + offset)\n</code>",
]


class Scripted(Model):
    """Says one line after another."""

    def __init__(self):
        super().__init__(model_id="scripted")
        self.said = 0

    def generate(self, messages, **options):
        """Return the next line."""
        line = SCRIPT[self.said]
        self.said += 1
        return ChatMessage(role=MessageRole.ASSISTANT, content=line)


@tool
def double(n: int) -> int:
    """Double a number.

    Args:
        n: the number
    """
    return 2 * n


agent = CodeAgent(tools=[double], model=Scripted(), executor_type="e2b", max_steps=3)
try:
    answer = agent.run("Double the sum, and add the offset.", additional_args={"offset": 14})
finally:
    agent.cleanup()
print(json.dumps({"check": "a_final_answer", "fault": None if answer == 42 else f"answered {answer!r}"}))
