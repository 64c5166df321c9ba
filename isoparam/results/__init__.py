"""Results of the trained networks: statistics, comparisons, diagnostics.

Here belongs what turns results into numbers of a table. It imports network and images at most.
"""
