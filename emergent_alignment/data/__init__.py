"""Chat rendering, sources, bundled scenarios and pools, and typed fixed-shape batches."""
