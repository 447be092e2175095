"""Benchmarks of every op against the machine's own limits, torch and peers.

`python -m bench` prints the table, `python -m bench.check` holds the library to its bars, and
bench_<op>.py are for pytest-benchmark. How figures are made: docs/benchmarks.md.
"""
