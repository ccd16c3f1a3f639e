"""MCP at /mcp: the tools, resources and prompts by which an agent's host reaches this node."""
