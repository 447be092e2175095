// What a launch is told, and what it tells.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace ptx {

class Profile;

enum class Mode : uint8_t {
  eager,   // asynchronous operations take effect when they are issued
  random,  // at a random time
  late,    // when no warp can move
};

struct LaunchOptions {
  uint32_t grid[3] = {1, 1, 1}, block[3] = {1, 1, 1}, cluster[3] = {1, 1, 1};
  uint64_t dynamic_shared = 0;
  uint64_t seed = 0;
  uint64_t max_instructions = ~uint64_t{0};  // of all warps; a launch that takes more is given up
  Mode mode = Mode::eager;
  bool races = true;
  bool coarse_fp8 = false;              // wgmma of fp8 sums as coarsely as Hopper does
  const volatile bool* stop = nullptr;  // once it is true, the launch is given up
  bool profile = false;  // what is accessed in memory, too; instructions are always counted
};

struct Stats {
  uint64_t warp_instructions = 0;
  uint64_t max_resident = 0;  // clusters at once
  // Executions of each instruction by the warps of the same index in their CTAs.
  std::vector<std::vector<uint64_t>> counts;
  std::vector<std::vector<uint64_t>> skipped;  // of them: with no lane
  std::shared_ptr<Profile> profile;            // null if it was not asked for
};

}  // namespace ptx
