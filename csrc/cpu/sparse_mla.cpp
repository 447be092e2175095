#include "sparse_mla.h"

#include <algorithm>
#include <cmath>

#include "convert.h"
#include "mla_record.h"
#include "parallel.h"
#include "prefetch.h"
#include "scratch.h"
#include "words.h"

namespace dsa::cpu {
namespace {

constexpr int kKeyTile = 128;
constexpr int kPrefetchKeys = 6;     // how far ahead: few, so that the L1 cache holds them
constexpr int64_t kSplitKeys = 512;  // fixed, so that results depend on no number of threads

// Softmax state of some keys: m and l [lanes], O [heads, 512].
struct State {
  float *max, *sum, *out;

  static int64_t floats(int heads, int lanes) { return int64_t{heads} * kValueDim + 2 * lanes; }
  State(float* memory, int lanes) : max(memory), sum(memory + lanes), out(memory + 2 * lanes) {}
  State(float* max, float* sum, float* out) : max(max), sum(sum), out(out) {}
  State from_head(int head) const {
    return {max + head, sum + head, out + int64_t{head} * kValueDim};
  }
};

struct Workspace {
  Scratch<int64_t> positions;
  Scratch<uint32_t> q, head_words, keys, values, p;
  Scratch<float> scores, alpha, states;
};

Workspace& workspace() {
  thread_local Workspace w;
  return w;
}

// The valid keys of a query, in the order of its indices.
class KeyList {
 public:
  explicit KeyList(const AttendQuery& query) : query_(query) {
    int64_t most = 0;
    for (int s = 0; s < query.num_selections; ++s) most += query.selections[s].length;
    int64_t* out = positions_ = workspace().positions.take(most);
    for (int s = 0; s < query.num_selections; ++s) {
      const Selection& selection = query.selections[s];
      const int64_t capacity = selection.source->capacity();
      for (int64_t i = 0; i < selection.length; ++i) {
        const int64_t index = selection.indices[i], position = selection.start + index;
        *out = position;
        out += index >= 0 && position >= 0 && position < capacity;
      }
      ends_[s] = out - positions_;
    }
  }

  int64_t size() const { return query_.num_selections == 0 ? 0 : ends_[query_.num_selections - 1]; }
  int64_t splits() const { return std::max<int64_t>((size() + kSplitKeys - 1) / kSplitKeys, 1); }

  // Whether key i lies in memory as words.
  bool in_place(const Arithmetic& math, int64_t i, const void* address) const {
    const KeySource& source = source_of(i);
    const DType dtype = source.kv ? source.kv.dtype : source.cache.dtype;
    return element_size(dtype) * math.dims_per_word == sizeof(uint32_t) &&
           reinterpret_cast<uintptr_t>(address) % sizeof(uint32_t) == 0;
  }

  // Key i, which is at `address`, dequantised.
  void load(const Arithmetic& math, int64_t i, const void* address, uint32_t* out) const {
    const KeySource& source = source_of(i);
    if (source.kv) {
      load_words(math, address, source.kv.dtype, 0, 1, query_.d_qk, out);
    } else {
      read_record_words(math, source.cache, source.format, positions_[i], address, out);
    }
  }

  // Where key i lies, but for the scales of v4.
  const void* address(int64_t i) const {
    const KeySource& source = source_of(i);
    return source.kv ? advance(source.kv.data, source.kv.dtype, positions_[i] * source.kv.stride[0])
                     : record_address(source.cache, source.format, positions_[i]);
  }
  int64_t bytes(int64_t i) const {
    const KeySource& source = source_of(i);
    return source.kv ? query_.d_qk * element_size(source.kv.dtype)
                     : source.cache.size[2] * element_size(source.cache.dtype);
  }

 private:
  const KeySource& source_of(int64_t i) const {
    return *query_.selections[i < ends_[0] ? 0 : 1].source;
  }

  const AttendQuery& query_;
  int64_t* positions_;
  int64_t ends_[2] = {};  // of each selection's keys
};

// Heads [begin, end) of a query, against any of its splits.
class HeadGroup {
 public:
  HeadGroup(const AttendQuery& query, const KeyList& keys, int begin, int end)
      : query_(query), keys_(keys), heads_(end - begin), lanes_(isa_.padded(heads_)) {
    Workspace& w = workspace();
    q_ = w.q.take(size_t(words_) * lanes_);
    uint32_t* rows = w.head_words.take(size_t(words_) * heads_);
    load_words(math_, advance(query.q, query.dtype, begin * query.q_stride), query.dtype,
               query.q_stride, heads_, query.d_qk, rows);
    transpose_words<2>(rows, heads_, words_, lanes_, q_);
    key_words_ = w.keys.take(size_t(kKeyTile) * words_);
    values_ = w.values.take(size_t(kKeyTile) * kValueDim);
    for (int i = 0; i < kKeyTile; ++i) value_rows_[i] = values_ + i * kValueDim;
    scores_ = w.scores.take(size_t(kKeyTile) * lanes_);
    p_ = w.p.take(size_t(kKeyTile) * lanes_);
    alpha_ = w.alpha.take(lanes_);
  }

  void attend(int64_t split, const State& state) {
    const int64_t begin = split * kSplitKeys, end = std::min(begin + kSplitKeys, keys_.size());
    std::fill_n(state.max, lanes_, -INFINITY);
    std::fill_n(state.sum, lanes_, 0.0f);
    if (begin >= end) std::fill_n(state.out, int64_t{heads_} * kValueDim, 0.0f);
    locate(begin, std::min(begin + kKeyTile, end));
    for (int64_t tile = begin; tile < end; tile += kKeyTile) {
      const int count = static_cast<int>(std::min<int64_t>(kKeyTile, end - tile));
      locate(tile + kKeyTile, std::min(tile + 2 * kKeyTile, keys_.size()));
      for (int i = 0; i < count; i += block_) load_and_score(tile, i, std::min(block_, count - i));
      absorb_scores(count, tile == begin, state);
    }
  }

 private:
  // Where keys [begin, end) lie; a tile ahead of their use. The split before may have been there.
  void locate(int64_t begin, int64_t end) {
    for (int64_t i = std::max(begin, located_); i < end; ++i) {
      touch(address_of(i) = keys_.address(i), 1);
    }
    located_ = std::max(located_, end);
  }
  const void*& address_of(int64_t i) { return addresses_[i % (2 * kKeyTile)]; }

  // Keys [i, i + n) of a tile: their scores, and their values if those have a form of their own.
  void load_and_score(int64_t tile, int i, int n) {
    uint32_t* memory = pairs_values() ? key_words_ : key_words_ + i * words_;
    for (int k = 0; k < n; ++k, memory += words_) {
      const int64_t key = tile + i + k, ahead = key + kPrefetchKeys;
      const void* address = address_of(key);
      if (keys_.in_place(math_, key, address)) {  // the hardware foresees its reads well enough
        key_rows_[i + k] = static_cast<const uint32_t*>(address);
        continue;
      }
      if (ahead < keys_.size()) prefetch(address_of(ahead), keys_.bytes(ahead));
      keys_.load(math_, key, address, memory);
      key_rows_[i + k] = memory;
    }
    const uint32_t* const* rows = key_rows_ + i;
    math_.dots(rows, n, q_, lanes_, words_, scores_ + int64_t{i} * lanes_);
    if (pairs_values()) {
      math_.pair_values(rows, n, kValueDim, values_ + i / 2 * kValueDim);
    }
  }

  void absorb_scores(int count, bool first, const State& state) {
    math_.softmax(scores_, count, lanes_, query_.sm_scale, state.max, state.sum, alpha_, p_);
    for (int h = 0; h < heads_ && !first; ++h) {
      if (alpha_[h] == 1.0f) continue;
      isa_.scale(state.out + int64_t{h} * kValueDim, alpha_[h], kValueDim);
    }
    const int words = (count + math_.dims_per_word - 1) / math_.dims_per_word;
    math_.combine(p_, heads_, lanes_, pairs_values() ? value_rows_ : key_rows_, words, state.out,
                  kValueDim, !first);
  }

  bool pairs_values() const { return math_.pair_values != nullptr; }

  const Isa& isa_ = current_isa();
  const AttendQuery& query_;
  const KeyList& keys_;
  const Arithmetic& math_ = arithmetic_for(isa_, query_.dtype, query_.d_qk);
  const int heads_, lanes_;
  const int words_ = query_.d_qk / math_.dims_per_word;
  // Keys that are scored at once. Few heads leave room in the L1 cache for as many as they reuse;
  // many would read their q too often.
  const int block_ = heads_ <= 2 * isa_.lanes ? 24 : 64;
  uint32_t* q_;                                                 // [words / 2, lanes, 2]
  uint32_t* key_words_;                                         // [kKeyTile, words]
  uint32_t* values_;                                            // [kKeyTile / dims_per_word, 512]
  const uint32_t *key_rows_[kKeyTile], *value_rows_[kKeyTile];  // where rows of either begin
  uint32_t* p_;                                                 // [kKeyTile / dims_per_word, lanes]
  float *scores_, *alpha_;
  const void* addresses_[2 * kKeyTile];
  int64_t located_ = 0;  // end of the keys whose address is known
};

// Adds the keys of `part` to those of `total`, for `lanes` lanes that hold `heads` heads.
void merge(const Isa& isa, int heads, int lanes, const State& total, const State& part) {
  constexpr int kBlock = 4 * kMaxLanes;
  for (int begin = 0; begin < lanes; begin += kBlock) {
    const int n = std::min(kBlock, lanes - begin);
    const State t = total.from_head(begin), p = part.from_head(begin);
    float alpha[kBlock], beta[kBlock];
    for (int h = 0; h < n; ++h) {
      const float a = t.max[h], b = p.max[h];
      const float max = b > a || b != b ? b : a;  // NaN sticks
      const float shift = max == -INFINITY ? 0.0f : max;
      alpha[h] = a - shift;
      beta[h] = b - shift;
      t.max[h] = max;
    }
    isa.exp_nonpositive(alpha, n);
    isa.exp_nonpositive(beta, n);
    for (int h = 0; h < n; ++h) t.sum[h] = t.sum[h] * alpha[h] + p.sum[h] * beta[h];
    for (int h = 0; h < std::min(n, heads - begin); ++h) {
      isa.scale_add(t.out + int64_t{h} * kValueDim, alpha[h], p.out + int64_t{h} * kValueDim,
                    beta[h], kValueDim);
    }
  }
}

// Results of heads [begin, begin + heads), whose state is `state`.
void write(const Isa& isa, const AttendQuery& query, int begin, int heads, const State& state) {
  for (int i = 0; i < heads; ++i) {
    const int head = begin + i;
    float* row = state.out + int64_t{i} * kValueDim;
    const bool empty = state.max[i] == -INFINITY;
    const float lse = empty ? -INFINITY : state.max[i] + std::log(state.sum[i]);
    float factor = empty ? 0.0f : 1.0f / state.sum[i];
    if (query.attn_sink != nullptr && !empty) {
      factor /= 1.0f + std::exp(query.attn_sink[head] - lse);
    }
    isa.scale(row, factor, kValueDim);
    from_float(isa, row, query.out, query.dtype, head * query.out_stride, kValueDim);
    query.lse[head] = lse;
    if (query.max_logits != nullptr) query.max_logits[head] = state.max[i];
  }
}

// Heads [begin, end) of a query by one thread.
void attend(const AttendQuery& query, int begin, int end) {
  const Isa& isa = current_isa();
  const int heads = end - begin, lanes = isa.padded(heads);
  const int64_t floats = State::floats(heads, lanes);
  float* memory = workspace().states.take(2 * floats);
  const State total(memory, lanes), part(memory + floats, lanes);
  const KeyList keys(query);
  HeadGroup group(query, keys, begin, end);
  group.attend(0, total);
  for (int64_t split = 1; split < keys.splits(); ++split) {
    group.attend(split, part);
    merge(isa, heads, lanes, total, part);
  }
  write(isa, query, begin, heads, total);
}

// Few queries on all threads: splits, and groups of heads where splits are few too, each into a
// state of its own; then the merge of a vector of heads at a time. Bitwise what `attend` gives.
void attend_split(int64_t num_queries, int num_heads, int64_t max_splits,
                  const std::function<AttendQuery(int64_t)>& make) {
  constexpr int64_t kItemsPerThread = 2;
  constexpr int kMinHeads = 32;  // a group gathers its keys anew
  const Isa& isa = current_isa();
  const int64_t items = torch::stable::get_num_threads() * kItemsPerThread;
  const int64_t wanted = std::max<int64_t>(items / (num_queries * max_splits), 1);
  const int step = isa.padded(std::max<int>((num_heads + wanted - 1) / wanted, kMinHeads));
  const int64_t groups = (num_heads + step - 1) / step;
  const int lanes = isa.padded(num_heads);
  const int64_t floats = State::floats(num_heads, lanes);
  thread_local Scratch<float> scratch;
  float* memory = scratch.take(num_queries * max_splits * floats);
  const auto state_of = [&](int64_t query, int64_t split) {
    return State(memory + (query * max_splits + split) * floats, lanes);
  };

  parallel_items(num_queries * max_splits * groups, [&](int64_t item) {
    const int64_t i = item / groups / max_splits, split = item / groups % max_splits;
    const int begin = static_cast<int>(item % groups) * step;
    const AttendQuery query = make(i);
    const KeyList keys(query);
    if (split >= keys.splits()) return;
    HeadGroup(query, keys, begin, std::min(begin + step, num_heads))
        .attend(split, state_of(i, split).from_head(begin));
  });

  const int64_t blocks = lanes / isa.lanes;
  parallel_items(num_queries * blocks, [&](int64_t item) {
    const int64_t i = item / blocks;
    const int begin = static_cast<int>(item % blocks) * isa.lanes;
    const int heads = std::min(isa.lanes, num_heads - begin);
    const AttendQuery query = make(i);
    const KeyList keys(query);
    const State total = state_of(i, 0).from_head(begin);
    for (int64_t split = 1; split < keys.splits(); ++split) {
      merge(isa, heads, isa.lanes, total, state_of(i, split).from_head(begin));
    }
    write(isa, query, begin, heads, total);
  });
}

}  // namespace

void attend_all(int64_t num_queries, int num_heads, int64_t max_keys,
                const std::function<AttendQuery(int64_t)>& make) {
  constexpr int kHeads = 64;  // so many cost far more than gathering their keys anew
  const int64_t threads = torch::stable::get_num_threads();
  const auto feeds_threads = [&](int64_t items) {
    return items >= 4 * threads || items % threads == 0;
  };
  if (num_queries == 0) return;
  const int64_t groups = feeds_threads(num_queries) ? 1 : (num_heads + kHeads - 1) / kHeads;
  if (feeds_threads(num_queries * groups)) {
    const int step = groups == 1 ? num_heads : kHeads;
    parallel_items(num_queries * groups, [&](int64_t item) {
      const int begin = static_cast<int>(item % groups) * step;
      attend(make(item / groups), begin, std::min(begin + step, num_heads));
    });
    return;
  }
  const int64_t max_splits = std::max<int64_t>((max_keys + kSplitKeys - 1) / kSplitKeys, 1);
  attend_split(num_queries, num_heads, max_splits, make);
}

}  // namespace dsa::cpu
