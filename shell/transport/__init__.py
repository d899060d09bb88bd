"""ZeroMQ: jobs to workers, over direct connections or a broker."""
