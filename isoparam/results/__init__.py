"""What the trained networks come to: statistics, comparisons, diagnostics."""
