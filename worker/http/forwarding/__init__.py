"""The client of a request as trusted proxies report it, in X-Forwarded-* or Forwarded headers."""
