// The k nearest points ahead of an origin, by their projection on a direction.
#pragma once

#include <cstdint>

namespace simple_knn {

// For every origin (an index into xyz) the k points of smallest positive (p' - p) . u, ascending, ties by index; an exact
// scan of all points, because no spatial bound helps a search that ignores the distance across the direction.
void directional_nearest(const float* xyz, int64_t count, const int64_t* origins, const float* directions,
                         int64_t num_origins, int k, int64_t* indices, float* projections, int threads);

}  // namespace simple_knn
