"""The two experiments with the sampled softmax: a linear classifier, instance discrimination."""
