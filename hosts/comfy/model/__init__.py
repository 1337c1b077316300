"""Knowledge about a MODEL: its layers, its settings, and whose code runs in it."""
