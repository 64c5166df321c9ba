"""The multilayer perceptron: products, softmax, forward and backward passes, training, its state.

Here belongs what decides the bits of a trained network. It imports images and budget alone.
"""
