"""Times `paged_indexer_topk`: python -m pytest bench/bench_paged_indexer_topk.py"""

from bench.common import each_row, run


@each_row("paged_indexer_topk")
def test_paged_indexer_topk(benchmark, shape, backend):
    run(benchmark, "paged_indexer_topk", shape, backend)
