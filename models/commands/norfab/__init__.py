"""Commands for workers of all services: `show norfab …`, `norfab …`."""
