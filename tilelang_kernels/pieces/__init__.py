"""What kernels of several ops are made of: macros, layouts, their arguments."""
