// What both modules, CPU and CUDA, make of their arguments.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"

namespace fused_losses {

using Pointer = uintptr_t;  // tensor.data_ptr(); 0 where there is no tensor

template <class T>
inline T* pointer(Pointer p) {
  return reinterpret_cast<T*>(p);
}

// Parallel lists, one entry per parameter; pointers: (parameter, gradient, exp_avg, exp_avg_sq, visible or 0)
// of each in a row, sizes: (rows, row_size), settings: (lr, beta1, beta2, eps, step).
inline std::vector<AdamParameter> adam_parameters(const std::vector<Pointer>& pointers,
                                                  const std::vector<int64_t>& sizes,
                                                  const std::vector<double>& settings) {
  std::vector<AdamParameter> parameters(sizes.size() / 2);
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Pointer* p = &pointers.at(5 * i);
    const double* s = &settings.at(5 * i);
    parameters[i] = {pointer<float>(p[0]),
                     pointer<const float>(p[1]),
                     pointer<float>(p[2]),
                     pointer<float>(p[3]),
                     pointer<const bool>(p[4]),
                     sizes[2 * i],
                     sizes[2 * i + 1],
                     s[0],
                     s[1],
                     s[2],
                     s[3],
                     s[4]};
  }
  return parameters;
}

}  // namespace fused_losses
