"""Times `topk_indices`: python -m pytest bench/bench_topk_indices.py"""

from bench.common import each_row, run


@each_row("topk_indices")
def test_topk_indices(benchmark, shape, backend):
    run(benchmark, "topk_indices", shape, backend)
