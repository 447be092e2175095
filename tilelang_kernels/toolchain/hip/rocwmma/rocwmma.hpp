// TileLang includes rocWMMA and uses nothing of it but the headers that it brings along.
#pragma once

#include <hip/hip_bf16.h>
