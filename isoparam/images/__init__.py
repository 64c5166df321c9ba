"""Raw files to tensors, the homework's split, and files of tensors.

Here belongs what turns a data set into numbers. It imports no other folder of isoparam.
"""
