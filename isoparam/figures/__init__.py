"""Tables to matplotlib figures. No file is read or written here, and nothing is recomputed.

Here belongs what only draws. It imports no other folder of isoparam, and no torch.
"""
