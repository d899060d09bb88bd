"""The audit trail: trail, chain, file, refusals."""
