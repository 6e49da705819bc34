// One way to launch: plain C++, no triple brackets.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace simple_knn {

template <class... Parameters, class... Arguments>
void launch(dim3 grid, int threads, cudaStream_t stream, void (*kernel)(Parameters...),
            Arguments... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.stream = stream;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, arguments...);
  if (error != cudaSuccess)
    throw std::runtime_error(std::string("simple_knn on CUDA: ") + cudaGetErrorString(error));
}

}  // namespace simple_knn
