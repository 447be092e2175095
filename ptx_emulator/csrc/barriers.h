// Barriers of a CTA and of a cluster.
#pragma once

#include "machine.h"

namespace ptx {

const Program& program_of(const Warp& w);

// Lanes that exit no longer take part in barriers.
void lanes_exited(Warp& w, Mask lanes);

}  // namespace ptx
