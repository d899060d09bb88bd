"""Replication of tokens between workers: digests of a token set, tombstones of deleted tokens, and the merge rule."""
