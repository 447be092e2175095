"""Pure-PyTorch implementations with the schemas' arguments: plain, slow, the executable specification."""
