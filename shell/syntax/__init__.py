"""The command language: lines to words, words to commands."""
