// Real spherical harmonics of degree 0 to 3 in the order and with the signs of 3DGS, and their derivatives.
// A colour is max(0, sum_k basis_k(direction) * coefficient_k + 1/2), direction = (mean - camera) / |mean - camera|.
#pragma once

#include <math.h>

#include "config.h"
#include "lanes.h"

namespace gs {

constexpr int kMaxShBasis = 16;

GS_HD constexpr int sh_basis_count(int degree) { return (degree + 1) * (degree + 1); }

template <class V>
GS_HD void sh_basis(int degree, const V* d, V* b) {
  using S = Scalar<V>;
  b[0] = V{} + S(0.28209479177387814);
  if (degree < 1) return;
  const V x = d[0], y = d[1], z = d[2];
  const S c1 = S(0.4886025119029199);
  b[1] = -c1 * y, b[2] = c1 * z, b[3] = -c1 * x;
  if (degree < 2) return;
  const V xx = x * x, yy = y * y, zz = z * z;
  b[4] = S(1.0925484305920792) * x * y, b[5] = S(-1.0925484305920792) * y * z;
  b[6] = S(0.31539156525252005) * (S(2) * zz - xx - yy);
  b[7] = S(-1.0925484305920792) * x * z, b[8] = S(0.5462742152960396) * (xx - yy);
  if (degree < 3) return;
  b[9] = S(-0.5900435899266435) * y * (S(3) * xx - yy), b[10] = S(2.890611442640554) * x * y * z;
  b[11] = S(-0.4570457994644658) * y * (S(4) * zz - xx - yy);
  b[12] = S(0.3731763325901154) * z * (S(2) * zz - S(3) * xx - S(3) * yy);
  b[13] = S(-0.4570457994644658) * x * (S(4) * zz - xx - yy), b[14] = S(1.445305721320277) * z * (xx - yy);
  b[15] = S(-0.5900435899266435) * x * (xx - S(3) * yy);
}

/// dL_dd of the direction, given dL_db of the basis functions.
template <class V>
GS_HD void sh_basis_backward(int degree, const V* d, const V* g, V* dL_dd) {
  using S = Scalar<V>;
  dL_dd[0] = dL_dd[1] = dL_dd[2] = V{};
  if (degree < 1) return;
  const V x = d[0], y = d[1], z = d[2];
  const S c1 = S(0.4886025119029199);
  dL_dd[0] = -c1 * g[3], dL_dd[1] = -c1 * g[1], dL_dd[2] = c1 * g[2];
  if (degree < 2) return;
  const S c4 = S(1.0925484305920792), c6 = S(0.31539156525252005), c8 = S(0.5462742152960396);
  dL_dd[0] += c4 * (y * g[4] - z * g[7]) - S(2) * c6 * x * g[6] + S(2) * c8 * x * g[8];
  dL_dd[1] += c4 * (x * g[4] - z * g[5]) - S(2) * c6 * y * g[6] - S(2) * c8 * y * g[8];
  dL_dd[2] += -c4 * (y * g[5] + x * g[7]) + S(4) * c6 * z * g[6];
  if (degree < 3) return;
  const S c9 = S(0.5900435899266435), c10 = S(2.890611442640554), c11 = S(0.4570457994644658);
  const S c12 = S(0.3731763325901154), c14 = S(1.445305721320277);
  const V xx = x * x, yy = y * y, zz = z * z;
  dL_dd[0] += S(-6) * c9 * x * y * g[9] + c10 * y * z * g[10] + S(2) * c11 * x * y * g[11] - S(6) * c12 * x * z * g[12] -
              c11 * (S(4) * zz - S(3) * xx - yy) * g[13] + S(2) * c14 * x * z * g[14] - S(3) * c9 * (xx - yy) * g[15];
  dL_dd[1] += S(-3) * c9 * (xx - yy) * g[9] + c10 * x * z * g[10] - c11 * (S(4) * zz - xx - S(3) * yy) * g[11] -
              S(6) * c12 * y * z * g[12] + S(2) * c11 * x * y * g[13] - S(2) * c14 * y * z * g[14] + S(6) * c9 * x * y * g[15];
  dL_dd[2] += c10 * x * y * g[10] - S(8) * c11 * y * z * g[11] + S(3) * c12 * (S(2) * zz - xx - yy) * g[12] -
              S(8) * c11 * x * z * g[13] + c14 * (xx - yy) * g[14];
}

template <class V>
GS_HD V unit_direction(const V* mean, const Scalar<V>* camera, V* d) {
  V length2 = {};
  for (int i = 0; i < 3; ++i) d[i] = mean[i] - camera[i], length2 += d[i] * d[i];
  const V inv = Scalar<V>(1) / lane_sqrt(length2);
  for (int i = 0; i < 3; ++i) d[i] *= inv;
  return inv;
}

}  // namespace gs
