// Sums over a block, in an order that depends on nothing but the number of threads.
#pragma once

#include <cuda_runtime.h>

namespace fused_losses {
namespace gpu {

constexpr unsigned kAllLanes = 0xFFFFFFFFu;

// The sum of all threads' values, for thread 0. `warp_sums`: shared, one per warp, read when the call
// returns: a barrier has to follow before they are written again.
template <int kThreads, class T>
__device__ __forceinline__ T block_sum(T value, T* warp_sums) {
  for (int step = 16; step; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = value;
  __syncthreads();
  T sum = 0;
  if (threadIdx.x == 0)
    for (int warp = 0; warp < kThreads / 32; ++warp) sum += warp_sums[warp];
  return sum;
}

}  // namespace gpu
}  // namespace fused_losses
