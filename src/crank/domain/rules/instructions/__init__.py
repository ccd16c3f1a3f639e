"""What an agent must know of a node to use it well: from the node's facts to one page of Markdown.

Every example on the page is run by tests/system/test_instructions.py. A fence of `python` is the code of a job; its
first lines say with what: `# profile: …`, and where needed `# args: …` and `# mounts: …`. A fence of `text` is one
HTTP request.
"""

from crank.domain.rules.instructions.facts import Facts
from crank.domain.rules.instructions.page import ENDS, ERRORS, instructions

__all__ = ["ENDS", "ERRORS", "Facts", "instructions"]
