"""The worker process: tokens, MCP server, jobs; never imports the shell."""
