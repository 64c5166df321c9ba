"""Worked examples of the sampled softmax, each on data that apt brings, or on generated ones."""
