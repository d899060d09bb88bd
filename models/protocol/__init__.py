"""NFP over ZeroMQ: frames, jobs and results, connections, replies of a broker."""
