// The part of HIP's device side that TileLang's templates and generated kernels use, in terms of
// clang's builtins: with it clang alone compiles them for gfx942 and gfx950, without ROCm.
//
// It is for compiling and inspecting (what compiles, instructions, registers, spills), not for
// running: nothing here has been compared with ROCm on a device. Where ROCm refuses code, so must
// these headers; what they lack is a compile error, never another meaning.
//
// Names that HIP has are global, as there; everything else is in namespace hip_headers. Files are
// ROCm's where TileLang includes them by name; the others are one per concern in amd_detail.
#pragma once

// TileLang takes these for granted, as ROCm's header brings them.
#include <stddef.h>
#include <stdint.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "amd_detail/amd_warp_functions.h"
#include "amd_detail/atomics.h"
#include "amd_detail/geometry.h"
#include "amd_detail/maths.h"
#include "amd_detail/printf.h"
#include "amd_detail/synchronisation.h"
#include "amd_detail/vector_types.h"
