"""What frames leave for later frames: in memory, in a file, and after an interruption."""
