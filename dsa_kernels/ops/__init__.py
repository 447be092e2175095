"""Contracts: one file per op."""
