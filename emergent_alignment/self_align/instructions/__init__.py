"""Stage 1: instructions that the model writes itself, from seeds and about topics that are hard."""
