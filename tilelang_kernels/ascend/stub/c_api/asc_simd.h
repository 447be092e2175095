// Declarations of what TileLang's AscendC calls of CANN's C API for dav-3510, with the arity and
// types of CANN's own headers: for checking sources, not for running them.
#pragma once

#include <cassert>

#include "simt_api/types.h"

enum pipe_t { PIPE_S, PIPE_V, PIPE_M, PIPE_MTE1, PIPE_MTE2, PIPE_MTE3, PIPE_FIX, PIPE_ALL };
enum event_t : int {};
enum class asc_load_l2_cache_mode : uint8_t {};
enum class asc_store_l2_cache_mode : uint8_t {};
enum class asc_dual_dst_mode : uint8_t {};
enum class asc_unit_flag_mode : uint8_t {};
enum class asc_quant_mode : uint8_t {};
enum class asc_relu_pre_mode : uint8_t {};
enum asc_mutex_execute_mode { ASC_LOCK_BLOCK };
struct asc_fill_value_config {
  uint64_t repeat, blk_num, dst_gap;
};

#define ASC_IS_AIC (asc_is_aic())
#define ASC_IS_AIV (asc_is_aiv())
bool asc_is_aic();
bool asc_is_aiv();
extern const int& block_idx;
int asc_get_sub_block_id();
void asc_init();

namespace AscendC {}
namespace cce {
struct dim3 {
  dim3(int x, int y = 1, int z = 1) : x(x), y(y), z(z) {}
  int x, y, z;
};
}  // namespace cce
template <typename Function>
void asc_run_threads(cce::dim3, Function);
template <auto function, typename... Arguments>
void asc_vf_call(cce::dim3 threads, Arguments... arguments) {
  static_assert(std::is_invocable_v<decltype(function), Arguments...>);
  asc_run_threads(threads, [=] { function(arguments...); });
}

template <typename T>
T max(T a, T b) {
  return a > b ? a : b;
}
template <typename T>
T min(T a, T b) {
  return a < b ? a : b;
}

void asc_sync_notify(pipe_t, pipe_t, event_t);
void asc_sync_wait(pipe_t, pipe_t, event_t);
void asc_sync_intra_arrive(pipe_t, uint64_t);
void asc_sync_intra_wait(pipe_t, uint64_t);
void asc_lock(pipe_t, uint8_t, asc_mutex_execute_mode);
void asc_unlock(pipe_t, uint8_t, asc_mutex_execute_mode);

// Global memory and the buffers of the vector unit and of the Cube.
void asc_copy_gm2ub_align(__ubuf__ uint8_t*, __gm__ uint8_t*, uint16_t burst_count,
                          uint32_t burst_bytes, uint8_t left_padding, uint8_t right_padding,
                          bool constant_padding, asc_load_l2_cache_mode, uint64_t from_stride,
                          uint32_t to_stride);
void asc_copy_ub2gm_align(__gm__ uint8_t*, __ubuf__ uint8_t*, uint16_t burst_count,
                          uint32_t burst_bytes, asc_store_l2_cache_mode, uint64_t to_stride,
                          uint32_t from_stride);
void asc_copy_ub2l1(__cbuf__ void*, __ubuf__ void*, uint16_t burst_count, uint16_t burst_blocks,
                    uint16_t from_gap, uint16_t to_gap);
void asc_set_gm2l1_nz_para(uint16_t matrices, uint16_t row_stride, uint16_t column_stride,
                           uint16_t matrix_stride);
template <typename T>
void asc_copy_gm2l1_nd2nz(__cbuf__ T*, __gm__ T*, uint64_t row_bytes, asc_load_l2_cache_mode,
                          uint16_t rows, uint32_t columns, uint64_t matrix_stride, bool);
void asc_fill_l1(__cbuf__ uint16_t*, uint32_t, const asc_fill_value_config&);

// The Cube: fractals of 16 rows by 32 bytes from L1, products in L0C, and those out again.
template <typename T>
void asc_copy_l12l0a(__ca__ T*, __cbuf__ T*, uint16_t first_row, uint16_t first_column,
                     uint8_t rows, uint8_t columns, int16_t from_stride, uint16_t to_stride);
template <typename T>
void asc_copy_l12l0b(__cb__ T*, __cbuf__ T*, uint16_t first_row, uint16_t first_column,
                     uint8_t rows, uint8_t columns, int16_t from_stride, uint16_t to_stride);
template <typename T>
void asc_copy_l12l0b_transpose(__cb__ T*, __cbuf__ T*, uint16_t first_row, uint16_t first_column,
                               uint8_t rows, uint8_t columns, int16_t from_stride,
                               uint16_t to_stride);
#define ASC_PRODUCT(T)                                                                   \
  void asc_mmad(__cc__ float*, __ca__ T*, __cb__ T*, uint16_t m, uint16_t k, uint16_t n, \
                uint8_t unit_flag, bool disable_gemv, bool from_bias, bool clear);
ASC_PRODUCT(bfloat16_t)
ASC_PRODUCT(half)
ASC_PRODUCT(float8_e4m3_t)
#undef ASC_PRODUCT
void asc_set_l0c_copy_nz_para(uint16_t matrices, uint16_t from_stride, uint32_t to_stride);
void asc_copy_l0c2ub(__ubuf__ float*, __cc__ float*, uint16_t n, uint16_t m, uint32_t to_stride,
                     uint16_t from_stride, int8_t vector_core, asc_dual_dst_mode,
                     asc_unit_flag_mode, asc_quant_mode, asc_relu_pre_mode, bool split_channels,
                     bool nz2nd, bool nz2dn, bool clip_relu);

// Vector registers of 256 bytes.
template <typename T>
struct vector_of {
  using element = T;
  T lanes[256 / sizeof(T)];
};
using vector_f32 = vector_of<float>;
using vector_f16 = vector_of<half>;
using vector_bf16 = vector_of<bfloat16_t>;
using vector_u64 = vector_of<uint64_t>;
using vector_s64 = vector_of<int64_t>;
using vector_u32 = vector_of<uint32_t>;
using vector_uint32_t = vector_u32;
using vector_s32 = vector_of<int32_t>;
using vector_u16 = vector_of<uint16_t>;
using vector_uint16_t = vector_u16;
using vector_s16 = vector_of<int16_t>;
using vector_u8 = vector_of<uint8_t>;
using vector_s8 = vector_of<int8_t>;
using vector_f8e4m3 = vector_of<float8_e4m3_t>;
using vector_f8e5m2 = vector_of<float8_e5m2_t>;
using vector_f8e8m0 = vector_of<float8_e8m0_t>;
using vector_f4e2m1x2 = vector_of<float4_e2m1x2_t>;
using vector_f4e1m2x2 = vector_of<float4_e1m2x2_t>;
struct vector_bool {
  bool lanes[256];
};

// Constants, each of a type of its own: TileLang's templates branch on them when they are compiled.
enum class asc_constant {
  MODE_ZEROING,
  MODE_MERGING,
  HIGHER,
  LOWER,
  INC_ORDER,
  POS_LOWEST,
  POST_UPDATE,
  PART_EVEN,
  PART_ODD,
  ROUND_R,
  RS_ENABLE,
  RS_DISABLE,
  Bin_N0,
  VST_VLD,
  PAT_ALL,
  PAT_VL1,
  PAT_VL2,
  PAT_VL64
};
template <asc_constant value>
using asc_is = std::integral_constant<asc_constant, value>;
#define ASC_CONSTANT(name) \
  constexpr asc_is<asc_constant::name> name {}
ASC_CONSTANT(MODE_ZEROING);
ASC_CONSTANT(MODE_MERGING);
ASC_CONSTANT(HIGHER);
ASC_CONSTANT(LOWER);
ASC_CONSTANT(INC_ORDER);
ASC_CONSTANT(POS_LOWEST);
ASC_CONSTANT(POST_UPDATE);
ASC_CONSTANT(PART_EVEN);
ASC_CONSTANT(PART_ODD);
ASC_CONSTANT(ROUND_R);
ASC_CONSTANT(RS_ENABLE);
ASC_CONSTANT(RS_DISABLE);
ASC_CONSTANT(Bin_N0);
ASC_CONSTANT(VST_VLD);
ASC_CONSTANT(PAT_ALL);
ASC_CONSTANT(PAT_VL1);
ASC_CONSTANT(PAT_VL2);
ASC_CONSTANT(PAT_VL64);
#undef ASC_CONSTANT

template <asc_constant pattern>
vector_bool asc_create_mask_b8(asc_is<pattern>);
template <asc_constant pattern>
vector_bool asc_create_mask_b16(asc_is<pattern>);
template <asc_constant pattern>
vector_bool asc_create_mask_b32(asc_is<pattern>);
vector_bool asc_update_mask_b8(uint32_t&);
vector_bool asc_update_mask_b16(uint32_t&);
vector_bool asc_update_mask_b32(uint32_t&);
template <asc_constant barrier>
void asc_mem_bar(asc_is<barrier>);

// The type of an argument that takes no part in deduction: scalars become a lane's type.
template <typename T>
using lane = std::type_identity_t<T>;

#define ASC_UNARY(name) \
  template <typename T> \
  void asc_##name(vector_of<T>&, vector_of<T>, vector_bool)
ASC_UNARY(abs);
ASC_UNARY(exp);
ASC_UNARY(ln);
ASC_UNARY(sqrt);
ASC_UNARY(reduce_max);
ASC_UNARY(reduce_sum);
#undef ASC_UNARY
#define ASC_BINARY(name)                                                   \
  template <typename T>                                                    \
  void asc_##name(vector_of<T>&, vector_of<T>, vector_of<T>, vector_bool); \
  template <typename T>                                                    \
  void asc_##name##_scalar(vector_of<T>&, vector_of<T>, lane<T>, vector_bool)
ASC_BINARY(add);
ASC_BINARY(sub);
ASC_BINARY(mul);
ASC_BINARY(div);
ASC_BINARY(max);
ASC_BINARY(min);
ASC_BINARY(and);
ASC_BINARY(or);
ASC_BINARY(exp_sub);
#undef ASC_BINARY
#define ASC_COMPARE(name)                                                 \
  template <typename T>                                                   \
  void asc_##name(vector_bool&, vector_of<T>, vector_of<T>, vector_bool); \
  template <typename T>                                                   \
  void asc_##name##_scalar(vector_bool&, vector_of<T>, lane<T>, vector_bool)
ASC_COMPARE(eq);
ASC_COMPARE(ne);
ASC_COMPARE(gt);
ASC_COMPARE(ge);
ASC_COMPARE(lt);
ASC_COMPARE(le);
#undef ASC_COMPARE
void asc_not(vector_bool&, vector_bool, vector_bool);
void asc_xor(vector_bool&, vector_bool, vector_bool, vector_bool);
void asc_and(vector_bool&, vector_bool, vector_bool, vector_bool);
void asc_or(vector_bool&, vector_bool, vector_bool, vector_bool);
void asc_select(vector_bool&, vector_bool, vector_bool, vector_bool);
template <typename T>
void asc_select(vector_of<T>&, vector_of<T>, vector_of<T>, vector_bool);
template <typename T>
void asc_duplicate_scalar(vector_of<T>&, lane<T>, vector_bool);
void vmula(vector_f32&, vector_f32, vector_f32, vector_bool, asc_is<asc_constant::MODE_ZEROING>);
template <asc_constant saturation, asc_constant part>
void vcvt(vector_bf16&, vector_f32, vector_bool, asc_is<asc_constant::ROUND_R>, asc_is<saturation>,
          asc_is<part>, asc_is<asc_constant::MODE_ZEROING>);
void asc_pack_to_low(vector_u16&, vector_u32);

void asc_loadalign(vector_bool&, __ubuf__ uint32_t*, int32_t offset);
void asc_storealign(__ubuf__ uint32_t*, vector_bool, int32_t offset);
void asc_storealign_pack(__ubuf__ uint32_t*, vector_bool, int32_t offset);
template <typename T>
void asc_loadalign(vector_of<T>&, __ubuf__ T*, int32_t offset);
template <typename T>
void asc_loadalign_brc_elem(vector_of<T>&, __ubuf__ T*, int32_t offset);
template <typename T>
void asc_storealign(__ubuf__ T*, vector_of<T>, int32_t offset, vector_bool);
template <typename T>
void asc_storealign_1st(__ubuf__ T*, vector_of<T>, int32_t offset);
template <typename T>
void asc_storealign_pack(__ubuf__ T*, vector_of<T>, int32_t offset, vector_bool);
template <typename T>
void asc_storealign_postupdate(__ubuf__ T*&, vector_of<T>, uint16_t block_stride,
                               uint16_t repeat_stride, vector_bool);

// TileLang's headers name these in functions that no kernel of ours calls; arity and types of their
// arguments stay unchecked.
#define ASC_UNCHECKED(name)        \
  template <typename... Arguments> \
  void name(Arguments...)
ASC_UNCHECKED(asc_loadalign_upsample);
ASC_UNCHECKED(asc_loadalign_downsample);
ASC_UNCHECKED(asc_storealign_pack_quarter);
ASC_UNCHECKED(asc_pack_to_low);
ASC_UNCHECKED(asc_pack_to_high);
ASC_UNCHECKED(asc_unpack_lower);
ASC_UNCHECKED(asc_unpack_upper);
ASC_UNCHECKED(asc_intlv_b8);
ASC_UNCHECKED(asc_intlv_b16);
ASC_UNCHECKED(asc_intlv_b32);
ASC_UNCHECKED(asc_deintlv_b8);
ASC_UNCHECKED(asc_deintlv_b16);
ASC_UNCHECKED(asc_deintlv_b32);
ASC_UNCHECKED(asc_frequency_histogram_bin0);
ASC_UNCHECKED(asc_frequency_histogram_bin1);
ASC_UNCHECKED(asc_cumulative_histogram_bin0);
ASC_UNCHECKED(asc_cumulative_histogram_bin1);
ASC_UNCHECKED(asc_copy_l12l0a_mx);
ASC_UNCHECKED(asc_copy_l12l0b_mx);
ASC_UNCHECKED(vmadd);
#undef ASC_UNCHECKED
