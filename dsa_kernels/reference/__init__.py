"""Pure-PyTorch implementations with the schemas' arguments: the executable specification."""
