"""What kernels issue and move for a unit of work, counted without a GPU."""
