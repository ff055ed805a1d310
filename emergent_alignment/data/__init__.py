"""Chat rendering, sources, bundled scenarios and typed fixed-shape batches."""
