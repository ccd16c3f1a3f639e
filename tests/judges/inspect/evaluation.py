"""An Inspect evaluation in Crank's sandbox: a scripted model calls real tools, a scorer looks into the sandbox.

Prints one JSON line: the status, the score and what the tools said.
"""

import asyncio
import json
import sys
from typing import Any

from inspect_ai import Task, eval_async
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import Score, Scorer, Target, accuracy, scorer
from inspect_ai.solver import TaskState, basic_agent
from inspect_ai.tool import bash, python
from inspect_ai.util import sandbox


@scorer(metrics=[accuracy()])
def left_behind() -> Scorer:
    """Score by what lies in the sandbox."""

    async def score(state: TaskState, target: Target) -> Score:
        found = await sandbox().read_file("total.txt")
        return Score(value=float(found.strip() == target.text), answer=found)

    return score


def says(tool: str, args: dict[str, Any]) -> ModelOutput:
    """Return what the model says next. Its tokens are counted here: Inspect's counting would fetch its vocabulary."""
    output = ModelOutput.for_tool_call("mockllm/model", tool, args)
    output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    return output


async def run(logs: str) -> dict[str, Any]:
    """Evaluate one sample and tell how it went."""
    script = [("bash", {"command": SUM}), ("python", {"code": CHECK}), ("submit", {"answer": "12"})]
    model = get_model("mockllm/model", custom_outputs=[says(name, args) for name, args in script])
    task = Task(
        dataset=[Sample(input="Add the numbers.", target="12", files={"in/numbers.txt": "3\n4\n5\n"})],
        solver=basic_agent(tools=[bash(timeout=20), python(timeout=20)]),
        scorer=left_behind(),
        sandbox="crank",
    )
    (log,) = await eval_async(task, model=model, log_dir=logs)
    samples = log.samples or []
    said = [message.text for sample in samples for message in sample.messages if message.role == "tool"]
    scores = [score.value for sample in samples for score in (sample.scores or {}).values()]
    return {"status": log.status, "error": str(log.error), "scores": scores, "said": said}


SUM = "total=0; while read n; do total=$((total + n)); done < in/numbers.txt; echo $total | tee total.txt"
CHECK = "import numpy; print(numpy.loadtxt('in/numbers.txt').sum(), open('total.txt').read())"

if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(sys.argv[1]))))
