"""The decoder's forward and backward pass on the CPU, written out: without autograd, in few operations.

A part is a function that returns its value and its pullback. The pullback takes the gradient of the value,
which it may overwrite, adds the gradients of the part's parameters to those that the parameters hold, and
returns the gradient of the input. What it needs it keeps until it is dropped. Rows are positions: shape
(B·T, width). What a pass did can be done again without Python between (`replay`).
"""
