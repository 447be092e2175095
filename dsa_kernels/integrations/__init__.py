"""Bindings to other projects. Each subpackage imports its project, so none is imported here."""
