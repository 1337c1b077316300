"""One sampling: its run, what happens in a layer, its memory, its errors."""
