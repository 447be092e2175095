// What of <cuda.h> the driver table uses, with its numbers and layouts: the emulator is built
// without CUDA. tests/cpp/driver_abi.cpp holds them against the real header.
#pragma once

#include <cstdint>

namespace ptx::driver {

using Result = int32_t;  // CUresult
using DevicePointer = uint64_t;
enum : Result {
  kSuccess = 0,
  kInvalidValue = 1,
  kOutOfMemory = 2,
  kNotInitialized = 3,
  kInvalidDevice = 101,
  kInvalidContext = 201,
  kNoBinaryForGpu = 209,
  kInvalidPtx = 218,
  kFileNotFound = 301,
  kInvalidHandle = 400,
  kNotFound = 500,
  kIllegalAddress = 700,
  kLaunchTimeout = 702,
  kAlreadyRegistered = 712,
  kNotRegistered = 713,
  kLaunchFailed = 719,
  kCooperativeLaunchTooLarge = 720,
  kNotSupported = 801,
  kInvalidClusterSize = 912,
};

enum DeviceAttribute : int32_t {
  kMaxThreadsPerBlock = 1,
  kMaxBlockDimX = 2,
  kMaxGridDimX = 5,
  kMaxSharedPerBlock = 8,
  kWarpSize = 10,
  kMaxRegistersPerBlock = 12,
  kMultiprocessorCount = 16,
  kMaxThreadsPerMultiprocessor = 39,
  kUnifiedAddressing = 41,
  kComputeCapabilityMajor = 75,
  kComputeCapabilityMinor = 76,
  kMaxSharedPerMultiprocessor = 81,
  kMaxRegistersPerMultiprocessor = 82,
  kCooperativeLaunch = 95,
  kMaxSharedPerBlockOptin = 97,
  kMaxBlocksPerMultiprocessor = 106,
  kReservedSharedPerBlock = 111,
  kClusterLaunch = 120,
  kTensorMapAccess = 127,
};

enum FunctionAttribute : int32_t {
  kFunctionMaxThreads = 0,
  kSharedBytes = 1,
  kLocalBytes = 3,
  kMaxDynamicShared = 8,
  kSharedCarveout = 9,
  kClusterSizeMustBeSet = 10,
  kRequiredClusterWidth = 11,
  kNonPortableClusterSize = 14,
  kClusterSchedulingPolicy = 15,
};

struct LaunchAttribute {
  enum Id : uint32_t {
    ignore = 0,
    cooperative = 2,
    cluster_dimension = 4,
    cluster_scheduling = 5,
    programmatic_serialization = 6,
    priority = 8,
  };
  alignas(8) uint32_t id;
  union alignas(8) {
    uint32_t cluster[3];
    int32_t number;
    char bytes[64];
  } value;
};

struct LaunchConfig {
  uint32_t grid[3], block[3];
  uint32_t shared_bytes;
  void* stream;
  const LaunchAttribute* attributes;
  uint32_t attribute_count;
};

}  // namespace ptx::driver
