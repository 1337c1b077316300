"""What frames leave for later ones: in memory, in a file, after an interruption."""
