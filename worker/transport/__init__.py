"""ZeroMQ, incoming jobs: a direct ROUTER with CURVE and ZAP, or a broker connection."""
