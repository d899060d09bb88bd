"""Files that a NorFab fabric shares by its service `filesharing`: their addresses, and fetching them."""
