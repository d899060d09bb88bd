"""One-shot operations: `--check`, `--backup`, `--restore`, `--import-norfab`."""
