"""Stage 2, principle-driven self-alignment: answers that the base model gives under principles."""
