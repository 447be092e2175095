// Runs AscendC sources on a CPU: definitions of what tilelang_kernels/ascend/stub declares, after
// the public documentation of CANN's C API. A block is a Cube and two vector cores, each a fiber;
// they take turns, and each runs its instructions in order, whatever pipe they are for. Found are
// waits for what never comes, and events that nobody waits for; races are not.
#pragma once

#include <tl_templates/ascend/common.h>
#include <ucontext.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <vector>

// Conversions to bfloat16, which older runtime libraries of compilers lack.
extern "C" __attribute__((weak, used)) bfloat16_t __truncsfbf2(float x) {
  uint32_t bits = std::bit_cast<uint32_t>(x);
  bits = x != x ? bits | 0x400000 : bits + 0x7fff + (bits >> 16 & 1);
  return std::bit_cast<bfloat16_t>(uint16_t(bits >> 16));
}

namespace model {

constexpr size_t kUb = 256 << 10, kL1 = 512 << 10, kL0 = 64 << 10, kL0c = 256 << 10;
constexpr size_t kStack = 1 << 20, kBlock = 32, kFractal = 512;

struct Core {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(kStack);
  std::vector<char> ub = std::vector<char>(kUb, char(0xff));
  std::map<std::tuple<int, int, int>, int> notified;
  bool done = false;
};

struct Block {
  Core cores[3];  // vector, vector, Cube
  std::vector<char> l1 = std::vector<char>(kL1, char(0xff));
  std::vector<char> l0a = std::vector<char>(kL0, char(0xff));
  std::vector<char> l0b = std::vector<char>(kL0, char(0xff));
  std::vector<char> l0c = std::vector<char>(kL0c, char(0xff));
  int to_cube[32] = {}, to_vector[2][16] = {};
  uint64_t nz_column_stride = 0;
  ucontext_t scheduler;
  int running = 0;
  bool progressed = false;
};

inline Block* block;
inline int block_index;
inline index_t thread_index;
inline std::function<void()> body;
inline std::string failure;

inline Core& core() {
  return block->cores[block->running];
}
inline bool is_cube() {
  return block->running == 2;
}

inline void require(bool holds, const char* what) {
  if (!holds && failure.empty()) failure = what;
}

inline void yield() {
  swapcontext(&core().context, &block->scheduler);
}

inline void wait(int& flag) {
  while (flag == 0 && failure.empty()) yield();
  --flag;
  block->progressed = true;
}

inline void enter() {
  body();
  core().done = block->progressed = true;
  yield();
}

// A buffer's bytes from an address in it.
template <typename T>
T* in(std::vector<char>& buffer, size_t address, size_t bytes) {
  require(address + bytes <= buffer.size(), "an address past the end of a buffer");
  return reinterpret_cast<T*>(buffer.data() + (failure.empty() ? address : 0));
}

inline void launch(int blocks, std::function<void()> kernel) {
  body = kernel;
  failure.clear();
  for (block_index = 0; block_index < blocks && failure.empty(); ++block_index) {
    Block current;
    block = &current;
    for (Core& each : current.cores) {
      getcontext(&each.context);
      each.context.uc_stack = {each.stack.data(), 0, each.stack.size()};
      makecontext(&each.context, enter, 0);
    }
    auto unfinished = [&] {
      int count = 0;
      for (Core& each : current.cores) count += !each.done;
      return count;
    };
    while (unfinished() && failure.empty()) {
      current.progressed = false;
      for (current.running = 0; current.running < 3; ++current.running)
        if (!core().done) swapcontext(&current.scheduler, &core().context);
      require(current.progressed, "all cores wait");
    }
    for (Core& each : current.cores)
      for (auto& [event, count] : each.notified) require(count == 0, "an event nobody waited for");
  }
}

inline float value(float x) {
  return x;
}
inline float value(bfloat16_t x) {
  return float(x);
}
inline float value(half x) {
  return float(x);
}
inline float value(float8_e4m3_t x) {
  int exponent = x.bits >> 3 & 15, mantissa = x.bits & 7;
  float magnitude = exponent ? std::ldexp(8 + mantissa, exponent - 10) : std::ldexp(mantissa, -9);
  if ((x.bits & 127) == 127) magnitude = NAN;
  return x.bits & 128 ? -magnitude : magnitude;
}

// Fractals, 16 rows of 32 bytes, from column-major order in L1.
template <typename T>
void load_fractals(std::vector<char>& to, size_t to_address, size_t from_address, int first_row,
                   int first_column, int rows, int columns, int from_stride, int to_stride,
                   bool transpose) {
  constexpr int width = kBlock / sizeof(T);
  for (int k = 0; k < columns; ++k)
    for (int m = 0; m < rows; ++m) {
      size_t source = (first_column + k) * from_stride + first_row + m;
      size_t target = transpose ? m * to_stride + k : k * to_stride + m;
      auto* from = in<T>(block->l1, from_address + source * kFractal, kFractal);
      auto* out = in<T>(to, to_address + target * kFractal, kFractal);
      require(!transpose || width == 16, "a transposed fractal that is not square");
      for (int i = 0; i < 16; ++i)
        for (int j = 0; j < width; ++j)
          out[transpose ? j * width + i : i * width + j] = from[i * width + j];
    }
}

template <typename T>
void multiply(size_t c, size_t a, size_t b, int m, int k, int n, bool clear) {
  constexpr int width = kBlock / sizeof(T);
  auto* left = in<T>(block->l0a, a, m * k * sizeof(T));
  auto* right = in<T>(block->l0b, b, n * k * sizeof(T));
  auto* sums = in<float>(block->l0c, c, m * n * sizeof(float));
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < n; ++j) {
      float& sum = sums[(j / 16 * m + i) * 16 + j % 16];
      if (clear) sum = 0;
      for (int d = 0; d < k; ++d)
        sum += value(left[(d / width * m + i) * width + d % width]) *
               value(right[(d / width * n + j) * width + d % width]);
    }
}

}  // namespace model

inline const int& block_idx = model::block_index;
inline const index_t& threadIdx = model::thread_index;
inline bool asc_is_aic() {
  return model::is_cube();
}
inline bool asc_is_aiv() {
  return !model::is_cube();
}
inline int asc_get_sub_block_id() {
  return model::block->running;
}
inline void asc_init() {}
// On the Cube an address in a vector core's buffer, on a vector core a pointer.
inline char* asc_ub() {
  return model::is_cube() ? nullptr : model::core().ub.data();
}
template <typename Function>
void asc_run_threads(cce::dim3 threads, Function function) {
  for (int thread = 0; thread < threads.x; ++thread) {
    model::thread_index = {uint32_t(thread), 0, 0};
    function();
  }
}

inline void asc_sync_notify(pipe_t from, pipe_t to, event_t event) {
  ++model::core().notified[{from, to, event}];
}
inline void asc_sync_wait(pipe_t from, pipe_t to, event_t event) {
  int& count = model::core().notified[{from, to, event}];
  model::require(count > 0, "a wait for an event that nobody notified");
  --count;
}
inline void asc_sync_intra_arrive(pipe_t, uint64_t flag) {
  int core = model::block->running;
  ++(model::is_cube() ? model::block->to_vector[flag / 16][flag % 16]
                      : model::block->to_cube[flag + 16 * core]);
  model::block->progressed = true;
}
inline void asc_sync_intra_wait(pipe_t, uint64_t flag) {
  int core = model::block->running;
  model::wait(model::is_cube() ? model::block->to_cube[flag] : model::block->to_vector[core][flag]);
}
inline void asc_lock(pipe_t, uint8_t, asc_mutex_execute_mode) {}
inline void asc_unlock(pipe_t, uint8_t, asc_mutex_execute_mode) {}

inline void asc_copy_gm2ub_align(__ubuf__ uint8_t* to, __gm__ uint8_t* from, uint16_t bursts,
                                 uint32_t bytes, uint8_t, uint8_t, bool, asc_load_l2_cache_mode,
                                 uint64_t from_stride, uint32_t to_stride) {
  for (int i = 0; i < bursts; ++i) {
    std::memcpy((char*)to + i * to_stride, (char*)from + i * from_stride, bytes);
    std::memset((char*)to + i * to_stride + bytes, 0xff, -bytes % model::kBlock);
  }
}
inline void asc_copy_ub2gm_align(__gm__ uint8_t* to, __ubuf__ uint8_t* from, uint16_t bursts,
                                 uint32_t bytes, asc_store_l2_cache_mode, uint64_t to_stride,
                                 uint32_t from_stride) {
  for (int i = 0; i < bursts; ++i)
    std::memcpy((char*)to + i * to_stride, (char*)from + i * from_stride, bytes);
}
inline void asc_copy_ub2l1(__cbuf__ void* to, __ubuf__ void* from, uint16_t bursts, uint16_t blocks,
                           uint16_t from_gap, uint16_t to_gap) {
  size_t bytes = blocks * model::kBlock;
  for (int i = 0; i < bursts; ++i)
    std::memcpy(model::in<char>(model::block->l1,
                                size_t(to) + i * (blocks + to_gap) * model::kBlock, bytes),
                (char*)from + i * (blocks + from_gap) * model::kBlock, bytes);
}
inline void asc_set_gm2l1_nz_para(uint16_t matrices, uint16_t row_stride, uint16_t column_stride,
                                  uint16_t) {
  model::require(matrices == 1 && row_stride == 1, "a copy of several matrices");
  model::block->nz_column_stride = column_stride;
}
template <typename T>
void asc_copy_gm2l1_nd2nz(__cbuf__ T* to, __gm__ T* from, uint64_t row_bytes,
                          asc_load_l2_cache_mode, uint16_t rows, uint32_t columns, uint64_t, bool) {
  constexpr int width = model::kBlock / sizeof(T);
  for (int i = 0; i < rows; ++i)
    for (uint32_t j = 0; j < columns; ++j) {
      size_t at =
          ((j / width * model::block->nz_column_stride + i) * width + j % width) * sizeof(T);
      std::memcpy(model::in<T>(model::block->l1, size_t(to) + at, sizeof(T)),
                  (char*)from + i * row_bytes + j * sizeof(T), sizeof(T));
    }
}
inline void asc_fill_l1(__cbuf__ uint16_t* to, uint32_t fill, const asc_fill_value_config& config) {
  size_t bytes = config.blk_num * model::kBlock, step = bytes + config.dst_gap * model::kBlock;
  model::require(fill == 0, "a fill with another value than 0");
  for (size_t i = 0; i < config.repeat; ++i)
    std::memset(model::in<char>(model::block->l1, size_t(to) + i * step, bytes), 0, bytes);
}
template <typename T>
void asc_copy_l12l0a(__ca__ T* to, __cbuf__ T* from, uint16_t first_row, uint16_t first_column,
                     uint8_t rows, uint8_t columns, int16_t from_stride, uint16_t to_stride) {
  model::load_fractals<T>(model::block->l0a, size_t(to), size_t(from), first_row, first_column,
                          rows, columns, from_stride, to_stride, false);
}
template <typename T>
void asc_copy_l12l0b(__cb__ T* to, __cbuf__ T* from, uint16_t first_row, uint16_t first_column,
                     uint8_t rows, uint8_t columns, int16_t from_stride, uint16_t to_stride) {
  model::load_fractals<T>(model::block->l0b, size_t(to), size_t(from), first_row, first_column,
                          rows, columns, from_stride, to_stride, false);
}
template <typename T>
void asc_copy_l12l0b_transpose(__cb__ T* to, __cbuf__ T* from, uint16_t first_row,
                               uint16_t first_column, uint8_t rows, uint8_t columns,
                               int16_t from_stride, uint16_t to_stride) {
  model::load_fractals<T>(model::block->l0b, size_t(to), size_t(from), first_row, first_column,
                          rows, columns, from_stride, to_stride, true);
}
#define ASC_PRODUCT(T)                                                                    \
  inline void asc_mmad(__cc__ float* c, __ca__ T* a, __cb__ T* b, uint16_t m, uint16_t k, \
                       uint16_t n, uint8_t, bool, bool, bool clear) {                     \
    model::multiply<T>(size_t(c), size_t(a), size_t(b), m, k, n, clear);                  \
  }
ASC_PRODUCT(bfloat16_t)
ASC_PRODUCT(float8_e4m3_t)
inline void asc_set_l0c_copy_nz_para(uint16_t matrices, uint16_t, uint32_t) {
  model::require(matrices == 1, "a copy of several matrices");
}
inline void asc_copy_l0c2ub(__ubuf__ float* to, __cc__ float* from, uint16_t n, uint16_t m,
                            uint32_t to_stride, uint16_t from_stride, int8_t,
                            asc_dual_dst_mode dual, asc_unit_flag_mode, asc_quant_mode,
                            asc_relu_pre_mode, bool, bool nz2nd, bool, bool) {
  model::require(int(dual) == 1 && nz2nd, "a copy that does not split rows over the vector cores");
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < n; ++j) {
      size_t source = (size_t(j) / 16 * from_stride + i) * 16 + j % 16;
      int half = i / (m / 2);
      size_t target = size_t(i - half * (m / 2)) * to_stride + j;
      *model::in<float>(model::block->cores[half].ub, size_t(to) + target * 4, 4) =
          *model::in<float>(model::block->l0c, size_t(from) + source * 4, 4);
    }
}

// Vectors. A mask has a bit for a byte.
template <typename T>
bool asc_at(const vector_bool& mask, int lane) {
  return mask.lanes[lane * sizeof(T)];
}
template <typename T>
constexpr int asc_lanes = 256 / sizeof(T);
inline vector_bool asc_first(uint32_t lanes, int bytes) {
  vector_bool mask{};
  for (uint32_t i = 0; i < 256; ++i) mask.lanes[i] = i / bytes < lanes;
  return mask;
}
template <asc_constant pattern>
constexpr uint32_t asc_count = pattern == asc_constant::PAT_VL1    ? 1
                               : pattern == asc_constant::PAT_VL64 ? 64
                                                                   : 256;
#define ASC_MASKS(width, bytes)                                 \
  template <asc_constant pattern>                               \
  vector_bool asc_create_mask_##width(asc_is<pattern>) {        \
    return asc_first(asc_count<pattern>, bytes);                \
  }                                                             \
  inline vector_bool asc_update_mask_##width(uint32_t& count) { \
    uint32_t lanes = std::min<uint32_t>(count, 256 / bytes);    \
    count -= lanes;                                             \
    return asc_first(lanes, bytes);                             \
  }
ASC_MASKS(b16, 2)
ASC_MASKS(b32, 4)
template <asc_constant barrier>
void asc_mem_bar(asc_is<barrier>) {}

#define ASC_UNARY(name, expression)                                      \
  template <typename T>                                                  \
  void asc_##name(vector_of<T>& out, vector_of<T> x, vector_bool mask) { \
    for (int i = 0; i < asc_lanes<T>; ++i) {                             \
      T a = x.lanes[i];                                                  \
      out.lanes[i] = asc_at<T>(mask, i) ? T(expression) : T();           \
    }                                                                    \
  }
ASC_UNARY(abs, std::abs(a))
ASC_UNARY(ln, std::log(a))
#define ASC_BINARY(name, expression)                                                         \
  template <typename T>                                                                      \
  void asc_##name(vector_of<T>& out, vector_of<T> x, vector_of<T> y, vector_bool mask) {     \
    for (int i = 0; i < asc_lanes<T>; ++i) {                                                 \
      T a = x.lanes[i], b = y.lanes[i];                                                      \
      out.lanes[i] = asc_at<T>(mask, i) ? T(expression) : T();                               \
    }                                                                                        \
  }                                                                                          \
  template <typename T>                                                                      \
  void asc_##name##_scalar(vector_of<T>& out, vector_of<T> x, lane<T> b, vector_bool mask) { \
    for (int i = 0; i < asc_lanes<T>; ++i) {                                                 \
      T a = x.lanes[i];                                                                      \
      out.lanes[i] = asc_at<T>(mask, i) ? T(expression) : T();                               \
    }                                                                                        \
  }
ASC_BINARY(add, a + b)
ASC_BINARY(mul, a* b)
ASC_BINARY(div, a / b)
ASC_BINARY(max, a != a || a > b ? a : b)
ASC_BINARY(exp_sub, std::exp(a - b))
#define ASC_COMPARE(name, operation)                                                           \
  template <typename T>                                                                        \
  void asc_##name##_scalar(vector_bool& out, vector_of<T> x, lane<T> b, vector_bool mask) {    \
    for (int i = 0; i < 256; ++i)                                                              \
      out.lanes[i] = mask.lanes[i] && x.lanes[i / sizeof(T)] operation b;                      \
  }                                                                                            \
  template <typename T>                                                                        \
  void asc_##name(vector_bool& out, vector_of<T> x, vector_of<T> y, vector_bool mask) {        \
    for (int i = 0; i < 256; ++i)                                                              \
      out.lanes[i] = mask.lanes[i] && x.lanes[i / sizeof(T)] operation y.lanes[i / sizeof(T)]; \
  }
ASC_COMPARE(eq, ==)
ASC_COMPARE(ne, !=)
ASC_COMPARE(ge, >=)
ASC_COMPARE(lt, <)
ASC_COMPARE(le, <=)
inline void asc_or(vector_bool& out, vector_bool x, vector_bool y, vector_bool mask) {
  for (int i = 0; i < 256; ++i) out.lanes[i] = mask.lanes[i] && (x.lanes[i] || y.lanes[i]);
}
template <typename T>
void asc_or(vector_of<T>& out, vector_of<T> x, vector_of<T> y, vector_bool mask) {
  for (int i = 0; i < asc_lanes<T>; ++i)
    out.lanes[i] = asc_at<T>(mask, i) ? x.lanes[i] | y.lanes[i] : 0;
}
template <typename T>
void asc_select(vector_of<T>& out, vector_of<T> x, vector_of<T> y, vector_bool mask) {
  for (int i = 0; i < asc_lanes<T>; ++i)
    out.lanes[i] = asc_at<T>(mask, i) ? x.lanes[i] : y.lanes[i];
}
template <typename T>
void asc_duplicate_scalar(vector_of<T>& out, lane<T> x, vector_bool mask) {
  for (int i = 0; i < asc_lanes<T>; ++i) out.lanes[i] = asc_at<T>(mask, i) ? x : T();
}
// The result is in the first lane.
template <typename T>
void asc_reduce_max(vector_of<T>& out, vector_of<T> x, vector_bool mask) {
  T highest = -INFINITY;
  for (int i = 0; i < asc_lanes<T>; ++i)
    if (asc_at<T>(mask, i) && !(x.lanes[i] <= highest)) highest = x.lanes[i];
  out = {highest};
}
template <typename T>
void asc_reduce_sum(vector_of<T>& out, vector_of<T> x, vector_bool mask) {
  T sum = 0;
  for (int i = 0; i < asc_lanes<T>; ++i)
    if (asc_at<T>(mask, i)) sum += x.lanes[i];
  out = {sum};
}
inline void vmula(vector_f32& out, vector_f32 x, vector_f32 y, vector_bool mask,
                  asc_is<asc_constant::MODE_ZEROING>) {
  for (int i = 0; i < 64; ++i)
    out.lanes[i] = asc_at<float>(mask, i) ? std::fma(x.lanes[i], y.lanes[i], out.lanes[i]) : 0;
}
template <asc_constant saturation, asc_constant part>
void vcvt(vector_bf16& out, vector_f32 x, vector_bool, asc_is<asc_constant::ROUND_R>,
          asc_is<saturation>, asc_is<part>, asc_is<asc_constant::MODE_ZEROING>) {
  out = {};
  for (int i = 0; i < 64; ++i)
    out.lanes[2 * i + (part == asc_constant::PART_ODD)] = bfloat16_t(x.lanes[i]);
}
inline void asc_pack_to_low(vector_u16& out, vector_u32 x) {
  out = {};
  for (int i = 0; i < 64; ++i) out.lanes[i] = uint16_t(x.lanes[i]);
}

template <typename T>
T* asc_address(__ubuf__ T* address, size_t alignment) {
  size_t offset = (char*)address - asc_ub();
  model::require(offset % alignment == 0, "an address that is not aligned");
  return (T*)address;
}
template <typename T>
void asc_loadalign(vector_of<T>& out, __ubuf__ T* from, int32_t offset) {
  std::memcpy(out.lanes, asc_address(from, model::kBlock) + offset, 256);
}
template <typename T>
void asc_loadalign_brc_elem(vector_of<T>& out, __ubuf__ T* from, int32_t offset) {
  for (T& each : out.lanes) each = asc_address(from, sizeof(T))[offset];
}
template <typename T>
void asc_storealign(__ubuf__ T* to, vector_of<T> x, int32_t offset, vector_bool mask) {
  for (int i = 0; i < asc_lanes<T>; ++i)
    if (asc_at<T>(mask, i)) asc_address(to, model::kBlock)[offset + i] = x.lanes[i];
}
template <typename T>
void asc_storealign_1st(__ubuf__ T* to, vector_of<T> x, int32_t offset) {
  asc_address(to, sizeof(T))[offset] = x.lanes[0];
}
// The low half of each lane.
template <typename T>
void asc_storealign_pack(__ubuf__ T* to, vector_of<T> x, int32_t offset, vector_bool mask) {
  char* bytes = (char*)(asc_address(to, model::kBlock) + offset);
  constexpr size_t half = sizeof(T) / 2;
  for (int i = 0; i < asc_lanes<T>; ++i)
    if (asc_at<T>(mask, i)) std::memcpy(bytes + i * half, &x.lanes[i], half);
}
template <typename T>
void asc_storealign_postupdate(__ubuf__ T*& to, vector_of<T> x, uint16_t block_stride,
                               uint16_t repeat_stride, vector_bool mask) {
  char* bytes = (char*)asc_address(to, model::kBlock);
  for (int i = 0; i < 8; ++i)
    if (mask.lanes[i * model::kBlock])
      std::memcpy(bytes + i * block_stride * model::kBlock, (char*)x.lanes + i * model::kBlock,
                  model::kBlock);
  to += repeat_stride * model::kBlock / sizeof(T);
}
