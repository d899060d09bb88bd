"""ZeroMQ, outgoing jobs to other services of a fabric."""
