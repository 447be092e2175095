// Score, then select, as many rows at a time as the workspace holds. Rows of at most topk keys are
// selected whole and never scored.

#include <vector>

#include "convert.h"
#include "ops.h"

namespace dsa::cpu {
void indexer_topk(const IndexerTopkParams& p) {
  const int64_t num_rows = p.score.q.size[0], seq_len = p.score.k.size[0];
  const int64_t tile_rows = seq_len == 0 ? num_rows : p.workspace.size[0] / (4 * seq_len);
  std::vector<int32_t> start, end;  // of the tile's rows, empty where nothing need be scored
  for (int64_t first = 0; first < num_rows; first += tile_rows) {
    const int64_t count = tile_rows < num_rows - first ? tile_rows : num_rows - first;
    const View<2> logits{p.workspace.data, DType::kFloat32, {count, seq_len}, {seq_len, 1}};
    start.assign(count, 0);
    end.assign(count, 0);
    for (int64_t i = 0; i < count; ++i) {
      const Range range = row_range(p.score.row_start, p.score.row_end, first + i, seq_len);
      if (range.size() <= p.topk) continue;
      start[i] = static_cast<int32_t>(range.start);
      end[i] = static_cast<int32_t>(range.end);
    }

    MqaLogitsParams score = p.score;
    score.q = slice(p.score.q, first, count);
    score.weights = slice(p.score.weights, first, count);
    score.row_start = {start.data(), DType::kInt32, {count}, {1}};
    score.row_end = {end.data(), DType::kInt32, {count}, {1}};
    score.compressed = false;
    score.fill = false;
    score.out = logits;
    mqa_logits(score);

    topk_indices({logits, slice(p.score.row_start, first, count),
                  slice(p.score.row_end, first, count), p.topk, slice(p.out, first, count)});
  }
}

}  // namespace dsa::cpu
