// Real spherical harmonics of degree 0 to 3 in the order and with the signs of 3DGS, and their derivatives.
// A colour is max(0, sum_k basis_k(direction) * coefficient_k + 1/2), direction = (mean - camera) / |mean - camera|.
#pragma once

#include <math.h>

#include "config.h"

namespace gs {

constexpr int kMaxShBasis = 16;

GS_HD constexpr int sh_basis_count(int degree) { return (degree + 1) * (degree + 1); }

template <class T>
GS_HD void sh_basis(int degree, const T* d, T* b) {
  b[0] = T(0.28209479177387814);
  if (degree < 1) return;
  const T x = d[0], y = d[1], z = d[2], c1 = T(0.4886025119029199);
  b[1] = -c1 * y, b[2] = c1 * z, b[3] = -c1 * x;
  if (degree < 2) return;
  const T xx = x * x, yy = y * y, zz = z * z;
  b[4] = T(1.0925484305920792) * x * y, b[5] = T(-1.0925484305920792) * y * z;
  b[6] = T(0.31539156525252005) * (2 * zz - xx - yy);
  b[7] = T(-1.0925484305920792) * x * z, b[8] = T(0.5462742152960396) * (xx - yy);
  if (degree < 3) return;
  b[9] = T(-0.5900435899266435) * y * (3 * xx - yy), b[10] = T(2.890611442640554) * x * y * z;
  b[11] = T(-0.4570457994644658) * y * (4 * zz - xx - yy);
  b[12] = T(0.3731763325901154) * z * (2 * zz - 3 * xx - 3 * yy);
  b[13] = T(-0.4570457994644658) * x * (4 * zz - xx - yy), b[14] = T(1.445305721320277) * z * (xx - yy);
  b[15] = T(-0.5900435899266435) * x * (xx - 3 * yy);
}

/// dL_dd of the direction, given dL_db of the basis functions.
template <class T>
GS_HD void sh_basis_backward(int degree, const T* d, const T* g, T* dL_dd) {
  dL_dd[0] = dL_dd[1] = dL_dd[2] = 0;
  if (degree < 1) return;
  const T x = d[0], y = d[1], z = d[2], c1 = T(0.4886025119029199);
  dL_dd[0] = -c1 * g[3], dL_dd[1] = -c1 * g[1], dL_dd[2] = c1 * g[2];
  if (degree < 2) return;
  const T c4 = T(1.0925484305920792), c6 = T(0.31539156525252005), c8 = T(0.5462742152960396);
  dL_dd[0] += c4 * (y * g[4] - z * g[7]) - 2 * c6 * x * g[6] + 2 * c8 * x * g[8];
  dL_dd[1] += c4 * (x * g[4] - z * g[5]) - 2 * c6 * y * g[6] - 2 * c8 * y * g[8];
  dL_dd[2] += -c4 * (y * g[5] + x * g[7]) + 4 * c6 * z * g[6];
  if (degree < 3) return;
  const T c9 = T(0.5900435899266435), c10 = T(2.890611442640554), c11 = T(0.4570457994644658);
  const T c12 = T(0.3731763325901154), c14 = T(1.445305721320277);
  const T xx = x * x, yy = y * y, zz = z * z;
  dL_dd[0] += -6 * c9 * x * y * g[9] + c10 * y * z * g[10] + 2 * c11 * x * y * g[11] - 6 * c12 * x * z * g[12] -
              c11 * (4 * zz - 3 * xx - yy) * g[13] + 2 * c14 * x * z * g[14] - 3 * c9 * (xx - yy) * g[15];
  dL_dd[1] += -3 * c9 * (xx - yy) * g[9] + c10 * x * z * g[10] - c11 * (4 * zz - xx - 3 * yy) * g[11] -
              6 * c12 * y * z * g[12] + 2 * c11 * x * y * g[13] - 2 * c14 * y * z * g[14] + 6 * c9 * x * y * g[15];
  dL_dd[2] += c10 * x * y * g[10] - 8 * c11 * y * z * g[11] + 3 * c12 * (2 * zz - xx - yy) * g[12] -
              8 * c11 * x * z * g[13] + c14 * (xx - yy) * g[14];
}

template <class T>
GS_HD T unit_direction(const T* mean, const T* camera, T* d) {
  T length2 = 0;
  for (int i = 0; i < 3; ++i) d[i] = mean[i] - camera[i], length2 += d[i] * d[i];
  const T inv = 1 / sqrt(length2);
  for (int i = 0; i < 3; ++i) d[i] *= inv;
  return inv;
}

}  // namespace gs
