// Windows of the generic address space. Global and constant addresses are the host's own.
#pragma once

#include <cstdint>
#include <string>

namespace ptx {

constexpr uint64_t kWindowBytes = uint64_t{1} << 48;
constexpr uint64_t kSharedWindow = 1 * kWindowBytes;
constexpr uint64_t kLocalWindow = 2 * kWindowBytes;
constexpr uint64_t kParamWindow = 3 * kWindowBytes;  // of the kernel

// An address of shared memory: the rank of its CTA in the cluster above an offset.
constexpr int kRankShift = 24;
constexpr uint32_t kSharedOffsetMask = (uint32_t{1} << kRankShift) - 1;

std::string hex(uint64_t n);

}  // namespace ptx
