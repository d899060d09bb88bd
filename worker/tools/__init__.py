"""What is published over MCP: discovery, catalogue, definitions, prompts, schemas, policy."""
