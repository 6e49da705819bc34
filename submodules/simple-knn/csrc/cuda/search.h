// The searches of the CPU part on a GPU, with the same results bit for bit. All pointers are to device
// memory, all calls only enqueue on `stream`.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace simple_knn {

// A tree lies in `tree`, tree_bytes(count) bytes, aligned to 16: the points in Morton order with their
// indices, and the boxes of every 32 of them, of every 32 of these boxes, and so on.
int64_t tree_bytes(int64_t count);

// codes (count,): position along the Morton curve through the box low, high = bounds (2, 3).
void morton_codes(const float* points, int64_t count, const float* bounds, int64_t* codes,
                  cudaStream_t stream);

// order (count,): the points' indices, sorted by code. Another order gives the same results, slower.
void build_tree(const float* points, int64_t count, const int64_t* order, void* tree, cudaStream_t stream);

// (count,) mean squared distance to the three nearest other points (to fewer where there are fewer, 0 for one
// point).
void mean_squared_distance(const void* tree, int64_t count, float* result, cudaStream_t stream);

// (num_queries, k) nearest points of every query, ascending; exclude may be null.
void nearest(const void* tree, int64_t count, const float* queries, const int64_t* exclude,
             int64_t num_queries, int k, int64_t* indices, float* squared_distances, cudaStream_t stream);

// For every origin (an index into points) the k points of smallest positive (p' - p) . u, ascending, ties by
// index. workspace: directional_bytes() bytes, aligned to 8.
int64_t directional_bytes(int64_t count, int64_t num_origins, int k);
void directional_nearest(const float* points, int64_t count, const int64_t* origins, const float* directions,
                         int64_t num_origins, int k, void* workspace, int64_t* indices, float* projections,
                         cudaStream_t stream);

}  // namespace simple_knn
