// The operations on V, a scalar or a vector of lanes, by which the shared mathematics is written: lane_less, lane_min, lane_max,
// lane_sqrt, lane_log, lane_divide, lane_any, lane_and, lane_and_not and lane_select. Each execution has its own.
#pragma once

#ifdef CUDART_VERSION
#include "cuda/lanes.h"
#else
#include "cpu/simd.h"
#endif
