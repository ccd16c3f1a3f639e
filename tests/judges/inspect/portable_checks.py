"""Every check of Inspect's portable suite, as it ships."""

from inspect_ai.util._sandbox.self_check import *  # noqa: F403
