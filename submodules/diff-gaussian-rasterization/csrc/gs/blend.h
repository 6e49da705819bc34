// Alpha blending of one Gaussian into one pixel, or into a vector of pixels: V is a scalar or a SIMD vector of S, M the type
// that comparing two V yields. The exponential is the
// execution's own.
#pragma once

#include "config.h"
#include "lanes.h"

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
  V in_front;  // transmittance in front of it
  V weight;    // alpha * in_front; 0 where there is no hit
};

/// Advances `transmittance` past one Gaussian, given opacity * exp(power), in the lanes of `live`, none of which it finishes.
template <class V, class M, class S>
GS_HD BlendStep<V, M> open_step(V raw_alpha, V& transmittance, M live) {
  BlendStep<V, M> s;
  s.raw_alpha = raw_alpha, s.in_front = transmittance;
  s.alpha = lane_min(raw_alpha, V{} + S(kAlphaMax));
  s.hit = lane_and_not(live, lane_less(s.alpha, V{} + S(kAlphaMin)));
  s.weight = lane_select(s.hit, s.alpha * transmittance, V{});
  transmittance = lane_select(s.hit, transmittance * (S(1) - s.alpha), transmittance);
  return s;
}

/// Takes the lanes out of `live` that one more Gaussian would finish, then advances past it.
template <class V, class M, class S>
GS_HD BlendStep<V, M> closing_step(V raw_alpha, V& transmittance, M& live) {
  V next = transmittance;
  open_step<V, M, S>(raw_alpha, next, live);
  live = lane_and_not(live, lane_less(next, V{} + S(kTransmittanceMin)));
  return open_step<V, M, S>(raw_alpha, transmittance, live);
}

/// Advances past N Gaussians in order. Nearly always they finish no lane, and then the steps do not wait for each other's tests;
/// the results are the same. The backward pass repeats exactly these operations.
template <class V, class M, class S, int N>
GS_HD void blend_steps(const V (&raw_alpha)[N], V& transmittance, M& live, BlendStep<V, M> (&steps)[N]) {
  const V before = transmittance;
  for (int n = 0; n < N; ++n) steps[n] = open_step<V, M, S>(raw_alpha[n], transmittance, live);
  if (!lane_any(lane_and(live, lane_less(transmittance, V{} + S(kTransmittanceMin))))) return;
  transmittance = before;
  for (int n = 0; n < N; ++n) steps[n] = closing_step<V, M, S>(raw_alpha[n], transmittance, live);
}

/// dL_dpower. `value` is the scalar sum over channels of feature * gradient of this Gaussian, `behind` the same sum already
/// blended over everything behind it. The clamp of alpha passes the gradient.
template <class V, class M, class S>
GS_HD V power_backward(const BlendStep<V, M>& s, V value, V behind, S one) {
  const V dL_dalpha = s.in_front * value - lane_divide(behind, one - s.alpha);
  return lane_select(s.hit, dL_dalpha * s.raw_alpha, V{});
}

}  // namespace gs
