"""The command language: words, and the commands they lead to."""
