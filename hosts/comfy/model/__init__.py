"""What a MODEL is: its layers, its settings, and whose code runs in it."""
