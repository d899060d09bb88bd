"""The token database: store, index, rows, files, backup, transfers."""
