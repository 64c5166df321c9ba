"""How deep should a network be when the number of its parameters is fixed?"""
