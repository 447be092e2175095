"""Times `sparse_mla_decode`: python -m pytest bench/bench_sparse_mla_decode.py"""

from bench.common import each_row, run


@each_row("sparse_mla_decode")
def test_sparse_mla_decode(benchmark, shape, backend):
    run(benchmark, "sparse_mla_decode", shape, backend)
