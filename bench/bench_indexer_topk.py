"""Times `indexer_topk`: python -m pytest bench/bench_indexer_topk.py"""

from bench.common import each_row, run


@each_row("indexer_topk")
def test_indexer_topk(benchmark, shape, backend):
    run(benchmark, "indexer_topk", shape, backend)
