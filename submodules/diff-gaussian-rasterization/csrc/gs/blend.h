// Alpha blending of one Gaussian into one pixel, or into a vector of pixels: V is a scalar or a SIMD vector of S, M the type
// that comparing two V yields. The execution supplies lane_exp(V), lane_any(M), lane_select(M, V, V), lane_and(M, M) and
// lane_and_not(M, M) for its types.
#pragma once

#include "config.h"

namespace gs {

/// log of the 2D Gaussian at the offset (dx, dy) from its mean, from the pre-scaled conic (-a/2, -b, -c/2).
template <class V, class S>
GS_HD V gaussian_power(V dx, V dy, S A, S B, S C) {
  return dx * (A * dx + B * dy) + C * dy * dy;
}

template <class V, class M>
struct BlendStep {
  M hit;        // lanes to which this Gaussian contributes
  V raw_alpha;  // opacity * exp(power), before the clamp to 0.99
  V alpha;
  V weight;     // alpha * transmittance in front; 0 where there is no hit
};

/// Advances `transmittance` and `live` past one Gaussian. The backward pass repeats exactly these operations.
template <class V, class M, class S>
GS_HD BlendStep<V, M> blend_step(V power, S opacity, V& transmittance, M& live) {
  BlendStep<V, M> s;
  s.raw_alpha = opacity * lane_exp(power);
  s.alpha = lane_select(s.raw_alpha < S(kAlphaMax), s.raw_alpha, V{} + S(kAlphaMax));
  const V next = transmittance * (S(1) - s.alpha);
  const M covered = lane_and(live, s.alpha >= S(kAlphaMin));
  const M finished = lane_and(covered, next < S(kTransmittanceMin));
  live = lane_and_not(live, finished);
  s.hit = lane_and_not(covered, finished);
  s.weight = lane_select(s.hit, s.alpha * transmittance, V{});
  transmittance = lane_select(s.hit, next, transmittance);
  return s;
}

/// dL_dpower. `value` is the scalar sum over channels of feature * gradient of this Gaussian, `transmittance` the one in front
/// of it, `behind` the same sum already blended over everything behind it. The clamp of alpha passes the gradient.
template <class V, class M, class S>
GS_HD V power_backward(const BlendStep<V, M>& s, V transmittance, V value, V behind, S one) {
  const V dL_dalpha = transmittance * value - behind / (one - s.alpha);
  return lane_select(s.hit, dL_dalpha * s.raw_alpha, V{});
}

}  // namespace gs
