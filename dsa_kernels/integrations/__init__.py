"""Bindings of dsa_kernels to other projects. Each subpackage imports its project, so none is imported here."""
