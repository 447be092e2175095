// Latents and rotated RoPE dims -> records of a paged latent cache.

#include <algorithm>
#include <cstring>

#include "convert.h"
#include "mla_record.h"
#include "ops.h"
#include "parallel.h"
#include "stream.h"

namespace dsa::cpu {
namespace {

// One token's latent or RoPE dims, bfloat16 or float32.
struct Dims {
  const void* data;
  DType dtype;

  // bf16 of dims [0, n); `to` may be unaligned.
  void round(const Isa& isa, int64_t n, void* to) const {
    if (dtype == DType::kBFloat16) return isa.copy_bfloat16(data, to, n);
    uint16_t bits[kValueDim];
    isa.to_bfloat16(static_cast<const float*>(data), bits, n);
    std::memcpy(to, bits, n * sizeof *bits);
  }

  // Codes of the first groups * n dims, and their scales.
  void quantize(const Isa& isa, bool ue8m0, int groups, int n, uint8_t* codes,
                float* scales) const {
    RowSteps steps;
    steps.ue8m0 = ue8m0;
    cpu::quantize(isa, steps, data, dtype, 0, n, groups, n, nullptr, codes, scales);
  }
};

struct RecordWriter {
  const Isa& isa;
  const MlaCacheStoreParams& p;
  StreamWriter data, scales;

  RecordWriter(const Isa& isa, const MlaCacheStoreParams& p, bool streams)
      : isa(isa), p(p), data(isa, streams), scales(isa, streams) {}

  // A key at a valid slot.
  void write(int64_t slot, const Dims& nope, const Dims& rope) {
    void* address = const_cast<void*>(record_address(p.cache, p.format, slot));
    switch (p.format) {
      case CacheFormat::kBFloat16: return write_bf16(address, nope, rope);
      case CacheFormat::kV32: return write_v32(address, nope, rope);
      case CacheFormat::kV4: return write_v4(address, slot, nope, rope);
    }
  }

 private:
  void write_bf16(void* address, const Dims& nope, const Dims& rope) {
    const int64_t nope_dim = p.cache.size[2] - kRopeDim;
    auto* record = static_cast<uint16_t*>(data.place(address, p.cache.size[2] * sizeof(uint16_t)));
    nope.round(isa, nope_dim, record);
    rope.round(isa, kRopeDim, record + nope_dim);
  }

  void write_v32(void* address, const Dims& nope, const Dims& rope) {
    auto* record = static_cast<uint8_t*>(data.place(address, V32::kRecordBytes));
    float group_scales[V32::kGroups];
    nope.quantize(isa, p.ue8m0, V32::kGroups, V32::kGroupDim, record, group_scales);
    std::memcpy(record + V32::kScaleOffset, group_scales, sizeof group_scales);
    rope.round(isa, kRopeDim, record + V32::kRopeOffset);
  }

  void write_v4(void* address, int64_t slot, const Dims& nope, const Dims& rope) {
    auto* record = static_cast<uint8_t*>(data.place(address, V4::kDataBytes));
    uint8_t exponents[V4::kScaleBytes] = {};
    uint32_t group_scales[V4::kGroups];
    nope.quantize(isa, true, V4::kGroups, V4::kGroupDim, record,
                  reinterpret_cast<float*>(group_scales));
    for (int g = 0; g < V4::kGroups; ++g)
      exponents[g] = static_cast<uint8_t>(group_scales[g] >> 23);
    rope.round(isa, kRopeDim, record + V4::kRopeOffset);
    std::memcpy(scales.place(v4_scales(p.cache, address, slot), V4::kScaleBytes), exponents,
                sizeof exponents);
  }
};

}  // namespace

void mla_cache_store(const MlaCacheStoreParams& p) {
  const Isa& isa = current_isa();
  const int64_t num_tokens = p.kv_c.size[0];
  const int64_t capacity = p.cache.size[0] * p.cache.size[1];
  const bool streams = num_tokens * p.cache.size[2] * element_size(p.cache.dtype) >= kStreamBytes;
  parallel_runs(num_tokens, [&](int64_t begin, int64_t end) {
    RecordWriter writer(isa, p, streams);
    for (int64_t token = begin; token < end; ++token) {
      const int64_t slot = integer_at(p.slots, token);
      if (slot < 0 || slot >= capacity) continue;
      const auto row = [&](const View<2>& v) {
        return Dims{advance(v.data, v.dtype, token * v.stride[0]), v.dtype};
      };
      writer.write(slot, row(p.kv_c), row(p.k_pe));
    }
  });
}

}  // namespace dsa::cpu
