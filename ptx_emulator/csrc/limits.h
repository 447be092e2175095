// What the machine that a module is made for allows a launch.
#pragma once

#include "machine.h"

namespace ptx {

constexpr int kNewestArchitecture = 90;

struct MachineLimits {
  int architecture;         // 80 for sm_80
  uint64_t shared_per_cta;  // static and dynamic
  uint64_t shared_per_sm;   // the driver takes 1 KB for each CTA
  uint64_t threads_per_sm;
  uint64_t ctas_per_sm;
  uint64_t sms;
  uint64_t cluster_size;  // not portable above 8; 1: no clusters
};

const MachineLimits& limits_of(int architecture);
int architecture_of(std::string_view target);  // 90 of "sm_90a", 0 if it is none
const MachineLimits& limits_of(const Program& program);
// A Fault if the launch breaks one.
void check_limits(const Program& program, const Kernel& kernel, const LaunchOptions& options);
uint64_t resident_ctas(const Program& program, const Kernel& kernel, const LaunchOptions& options);
// Of a CTA: static and dynamic with what aligns it.
uint64_t shared_bytes(const Kernel& kernel, const LaunchOptions& options);
uint64_t dynamic_shared_start(const Kernel& kernel);

}  // namespace ptx
