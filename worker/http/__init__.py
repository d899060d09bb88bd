"""HTTP: server, middleware, authentication, rate limit, active requests. Knows no MCP methods."""
