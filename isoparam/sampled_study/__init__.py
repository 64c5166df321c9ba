"""The two experiments with the sampled softmax: a linear classifier, instance discrimination.

Here belongs what decides their numbers. It imports sampled_softmax, network, images and budget.
"""
