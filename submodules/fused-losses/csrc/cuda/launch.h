// One way to launch a kernel: plain C++, no triple brackets. Every package holds this file (a test compares).
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace cuda_launch {

inline void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

/// Starts kernel(given...) on a grid of blocks of `threads` threads; of no block, nothing.
template <class... Parameters, class... Given>
void launch(dim3 grid, int threads, cudaStream_t stream, void (*kernel)(Parameters...), Given... given) {
  if (grid.x == 0) return;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(unsigned(threads));
  config.stream = stream;
  check(cudaLaunchKernelEx(&config, kernel, Parameters(given)...));
}

}  // namespace cuda_launch
