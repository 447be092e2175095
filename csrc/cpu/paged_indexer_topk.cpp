// Score, then select, as many requests at a time as the workspace holds. Query tokens that see at
// most topk keys select them all and are never scored.

#include <algorithm>
#include <vector>

#include "convert.h"
#include "ops.h"

namespace dsa::cpu {

void paged_indexer_topk(const PagedIndexerTopkParams& p) {
  const int64_t batch = p.score.q.size[0], next_n = p.score.q.size[1];
  const int64_t request_bytes = 4 * next_n * p.max_seq_len;
  const int64_t together = request_bytes == 0 ? batch : p.workspace.size[0] / request_bytes;
  std::vector<int32_t> lengths, scored;  // per query token; scored is 0 where no score is needed
  for (int64_t first = 0; first < batch; first += together) {
    const int64_t count = std::min(together, batch - first), rows = count * next_n;
    const View<2> logits{
        p.workspace.data, DType::kFloat32, {rows, p.max_seq_len}, {p.max_seq_len, 1}};
    lengths.resize(rows);
    scored.resize(rows);
    const View<2>& lens = p.score.seq_lens;
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t at = (first + row / next_n) * lens.stride[0] + row % next_n * lens.stride[1];
      const int64_t length = std::clamp<int64_t>(lens.as<const int32_t>()[at], 0, p.max_seq_len);
      lengths[row] = static_cast<int32_t>(length);
      scored[row] = length <= p.topk ? 0 : lengths[row];
    }

    PagedMqaLogitsParams score = p.score;
    score.q = slice(p.score.q, first, count);
    score.weights = slice(p.score.weights, first * next_n, rows);
    score.seq_lens = {scored.data(), DType::kInt32, {count, next_n}, {next_n, 1}};
    score.block_table = slice(p.score.block_table, first, count);
    score.fill = false;
    score.out = logits;
    paged_mqa_logits(score);

    topk_indices({logits,
                  {},
                  {lengths.data(), DType::kInt32, {rows}, {1}},
                  p.topk,
                  slice(p.out, first * next_n, rows)});
  }
}

}  // namespace dsa::cpu
