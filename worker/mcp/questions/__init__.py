"""Questions of a tool's task to the client that calls it."""
