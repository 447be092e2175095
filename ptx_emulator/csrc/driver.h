// Functions of the CUDA driver API that run on the emulator. See docs/driver.md.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

// The emulator's function of that name, as dlsym() would find it in libcuda.so.1; null if it has
// none. Types and results are those of <cuda.h>.
void* ptx_driver_function(const char* name);

// Of all launches from now on. Unless they are set, cuInit takes them from the environment:
// PTX_EMULATOR_MODE (eager, random, late), PTX_EMULATOR_SEED, PTX_EMULATOR_RACES (1, 0) and
// PTX_EMULATOR_COARSE_FP8 (0, 1).
struct PtxDriverOptions {
  int32_t mode;  // 0: eager, 1: random, 2: late
  int32_t races;
  int32_t coarse_fp8;
  uint64_t seed;
};
void ptx_driver_get_options(PtxDriverOptions* options);
void ptx_driver_set_options(const PtxDriverOptions* options);

// A launch as the driver got it: what a program outside needs to run it again, as it is or changed.
struct PtxDriverRegion {
  void* begin;
  uint64_t bytes;
  const char* name;
  int32_t read_only, written;
  uint64_t* written_bits;  // or null: `written` says it of all bytes
};
struct PtxDriverLaunch {
  const char* ptx;
  const char* kernel;
  uint32_t grid[3], block[3], cluster[3];
  uint64_t dynamic_shared;
  const void* params;  // the block of parameters
  uint64_t param_bytes;
  const PtxDriverRegion* regions;  // all memory of the device
  uint64_t region_count;
};
// Calls `instead` in place of each launch from now on, until it is set to null. If it returns
// anything but 0, the launch has failed.
void ptx_driver_intercept(int32_t (*instead)(const PtxDriverLaunch* launch));

// Makes memory of the host, such as a tensor, memory of the device at the same address. Returns a
// CUresult. `name` is for reports.
int32_t ptx_driver_register(void* begin, size_t bytes, const char* name, int32_t read_only,
                            int32_t written);
int32_t ptx_driver_unregister(void* begin);

}  // extern "C"
