"""Output: console, rendering, pipe functions, progress line, reports of internal errors."""
