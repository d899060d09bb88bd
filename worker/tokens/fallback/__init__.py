"""What makes revocations hold while the disk refuses writes: reserved space, and a journal in space that it has."""
