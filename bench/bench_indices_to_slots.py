"""Times `indices_to_slots`: python -m pytest bench/bench_indices_to_slots.py"""

from bench.common import each_row, run


@each_row("indices_to_slots")
def test_indices_to_slots(benchmark, shape, backend):
    run(benchmark, "indices_to_slots", shape, backend)
