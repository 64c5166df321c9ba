"""Results of the trained networks: statistics, comparisons, diagnostics."""
