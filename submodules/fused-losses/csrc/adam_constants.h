// What one Adam step of a parameter has in common for all its elements, on either device.
#pragma once

#include <cmath>

#include "kernels.h"
#include "losses_math.h"

namespace fused_losses {

// Internal linkage: see GS_HD.
static inline AdamConstants<float> adam_constants(const AdamParameter& p) {
  AdamConstants<float> k;
  k.one_minus_beta1 = float(1 - p.beta1);
  k.beta2 = float(p.beta2);
  k.one_minus_beta2 = float(1 - p.beta2);
  k.step_size = float(p.lr / (1 - std::pow(p.beta1, p.step)));
  k.inverse_sqrt_second = float(1 / std::sqrt(1 - std::pow(p.beta2, p.step)));
  k.eps = float(p.eps);
  return k;
}

}  // namespace fused_losses
