"""The routes that only SDK v2 uses: one module per subject."""
