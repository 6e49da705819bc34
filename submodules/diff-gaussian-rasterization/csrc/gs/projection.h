// Projection of a 3D Gaussian to the image plane (EWA splatting) and its derivatives, templated on V (config.h).
//
// Matrices arrive as 3DGS stores them: row vectors, i.e. p_view[j] = sum_i p[i] * view[4 * i + j]. Symmetric 3x3 matrices
// are (xx, xy, xz, yy, yz, zz), symmetric 2x2 ones (xx, xy, yy). dL_dS of a symmetric matrix S is stored as the symmetric
// matrix G with dL = sum_ij G_ij dS_ij, so that an off-diagonal parameter, which stands for two entries, has derivative 2 G_ij.
#pragma once

#include <math.h>

#include "config.h"
#include "lanes.h"

namespace gs {

template <class T>
struct Camera {
  T view[16], proj[16], position[3];
  T tan_fov_x, tan_fov_y, focal_x, focal_y;
  int width, height;
};

template <class V>
struct Projected {
  V mean[2];   // pixels
  V cov[3];    // 2D covariance with the low-pass filter, px^2
  V conic[3];  // its inverse
  V depth;     // view-space z
  V extent;    // px, 3 sigma along the longest axis
};

/// The radius that 3DGS reports.
template <class T>
GS_HD int radius_of(T extent) {
  return int(ceil(extent));
}

template <class V, class W>
GS_HD V dot3(const W* a, const V* b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

template <class V>
GS_HD void to_view(const Scalar<V>* view, const V* p, V* out) {
  for (int j = 0; j < 3; ++j) out[j] = p[0] * view[j] + p[1] * view[4 + j] + p[2] * view[8 + j] + view[12 + j];
}

template <class V>
GS_HD void to_clip(const Scalar<V>* proj, const V* p, V* out) {
  for (int j = 0; j < 4; ++j) out[j] = p[0] * proj[j] + p[1] * proj[4 + j] + p[2] * proj[8 + j] + proj[12 + j];
}

/// Fills `unit` with a quaternion of length 1; returns the reciprocal of the length that it had.
template <class V>
GS_HD V normalize_quaternion(const V* q, V* unit) {
  using S = Scalar<V>;
  const V length2 = q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3];
  const V inverse = S(1) / lane_sqrt(lane_max(length2, V{} + S(kMinLength2)));
  for (int k = 0; k < 4; ++k) unit[k] = q[k] * inverse;
  return inverse;
}

/// Rotation matrix, row-major, of the unit quaternion (w, x, y, z).
template <class V>
GS_HD void quaternion_to_matrix(const V* q, V* R) {
  using S = Scalar<V>;
  const V w = q[0], x = q[1], y = q[2], z = q[3];
  R[0] = S(1) - S(2) * (y * y + z * z), R[1] = S(2) * (x * y - w * z), R[2] = S(2) * (x * z + w * y);
  R[3] = S(2) * (x * y + w * z), R[4] = S(1) - S(2) * (x * x + z * z), R[5] = S(2) * (y * z - w * x);
  R[6] = S(2) * (x * z - w * y), R[7] = S(2) * (y * z + w * x), R[8] = S(1) - S(2) * (x * x + y * y);
}

template <class V>
GS_HD void quaternion_to_matrix_backward(const V* q, const V* G, V* dL_dq) {
  using S = Scalar<V>;
  const V w = q[0], x = q[1], y = q[2], z = q[3];
  dL_dq[0] = S(2) * (x * (G[7] - G[5]) + y * (G[2] - G[6]) + z * (G[3] - G[1]));
  dL_dq[1] = S(2) * (y * (G[1] + G[3]) + z * (G[2] + G[6]) + w * (G[7] - G[5])) - S(4) * x * (G[4] + G[8]);
  dL_dq[2] = S(2) * (x * (G[1] + G[3]) + z * (G[5] + G[7]) + w * (G[2] - G[6])) - S(4) * y * (G[0] + G[8]);
  dL_dq[3] = S(2) * (x * (G[2] + G[6]) + y * (G[5] + G[7]) + w * (G[3] - G[1])) - S(4) * z * (G[0] + G[4]);
}

/// Sigma = (R S)(R S)^T with S = diag(modifier * scale) and R the rotation of the quaternion q, of any length.
template <class V>
GS_HD void covariance_3d(const V* scale, Scalar<V> modifier, const V* q, V* sigma) {
  V unit[4], R[9], v[3];
  normalize_quaternion(q, unit);
  quaternion_to_matrix(unit, R);
  for (int k = 0; k < 3; ++k) v[k] = modifier * scale[k] * modifier * scale[k];
  int n = 0;
  for (int i = 0; i < 3; ++i)
    for (int j = i; j < 3; ++j)
      sigma[n++] = R[3 * i] * v[0] * R[3 * j] + R[3 * i + 1] * v[1] * R[3 * j + 1] + R[3 * i + 2] * v[2] * R[3 * j + 2];
}

template <class V>
GS_HD void covariance_3d_backward(const V* scale, Scalar<V> modifier, const V* q, const V* dL_dsigma, V* dL_dscale, V* dL_dq) {
  using S = Scalar<V>;
  V unit[4], R[9], dL_dR[9], dL_dunit[4];
  const V inverse = normalize_quaternion(q, unit);
  quaternion_to_matrix(unit, R);
  const V G[9] = {dL_dsigma[0], dL_dsigma[1], dL_dsigma[2], dL_dsigma[1], dL_dsigma[3],
                  dL_dsigma[4], dL_dsigma[2], dL_dsigma[4], dL_dsigma[5]};
  for (int k = 0; k < 3; ++k) {
    const V s = modifier * scale[k];
    V dL_ds = {};
    for (int i = 0; i < 3; ++i) {
      const V dL_dM = S(2) * s * (G[3 * i] * R[k] + G[3 * i + 1] * R[3 + k] + G[3 * i + 2] * R[6 + k]);
      dL_ds += dL_dM * R[3 * i + k];
      dL_dR[3 * i + k] = dL_dM * s;
    }
    dL_dscale[k] = modifier * dL_ds;
  }
  quaternion_to_matrix_backward(unit, dL_dR, dL_dunit);
  const V along = dot3(unit, dL_dunit) + unit[3] * dL_dunit[3];
  for (int k = 0; k < 4; ++k) dL_dq[k] = inverse * (dL_dunit[k] - along * unit[k]);
}

/// The 2x3 matrix T = J W that takes a 3D covariance to the image: J linearises the perspective at the view-space point t,
/// whose x / z and y / z are clamped to 1.3 tan(fov / 2) first; W is the rotation of the view matrix.
template <class V>
struct Linearised {
  using M = decltype(lane_less(V{}, V{}));
  V t[3];  // clamped view-space point
  M outside_x, outside_y;
  V rows[6];
};

template <class V>
GS_HD Linearised<V> linearise(const Camera<Scalar<V>>& camera, const V* view_point) {
  using S = Scalar<V>;
  Linearised<V> l;
  const V z = view_point[2], inv_z = S(1) / z;
  const V limit_x = V{} + S(kFrustumClamp) * camera.tan_fov_x, limit_y = V{} + S(kFrustumClamp) * camera.tan_fov_y;
  const V x = view_point[0] * inv_z, y = view_point[1] * inv_z;
  const V cx = lane_max(lane_min(x, limit_x), V{} - limit_x), cy = lane_max(lane_min(y, limit_y), V{} - limit_y);
  l.outside_x = lane_less(limit_x * limit_x, x * x);
  l.outside_y = lane_less(limit_y * limit_y, y * y);
  l.t[0] = cx * z, l.t[1] = cy * z, l.t[2] = z;
  const V jx = camera.focal_x * inv_z, jy = camera.focal_y * inv_z;
  for (int j = 0; j < 3; ++j) {
    l.rows[j] = jx * (camera.view[4 * j] - cx * camera.view[4 * j + 2]);
    l.rows[3 + j] = jy * (camera.view[4 * j + 1] - cy * camera.view[4 * j + 2]);
  }
  return l;
}

template <class V>
GS_HD void symmetric_times(const V* S, const V* v, V* out) {
  out[0] = S[0] * v[0] + S[1] * v[1] + S[2] * v[2];
  out[1] = S[1] * v[0] + S[3] * v[1] + S[4] * v[2];
  out[2] = S[2] * v[0] + S[4] * v[1] + S[5] * v[2];
}

/// False where the Gaussian is behind the near plane or degenerate: there, what is written means nothing. `sigma` is its 3D
/// covariance.
template <class V>
GS_HD auto project(const Camera<Scalar<V>>& camera, const V* mean, const V* sigma, Projected<V>& out) {
  using S = Scalar<V>;
  V t[3], clip[4];
  to_view(camera.view, mean, t);
  to_clip(camera.proj, mean, clip);
  const V inv_w = S(1) / (clip[3] + S(1e-7));
  out.mean[0] = ((clip[0] * inv_w + S(1)) * S(camera.width) - S(1)) * S(0.5);
  out.mean[1] = ((clip[1] * inv_w + S(1)) * S(camera.height) - S(1)) * S(0.5);
  out.depth = t[2];

  const Linearised<V> l = linearise(camera, t);
  V sx[3], sy[3];
  symmetric_times(sigma, l.rows, sx);
  symmetric_times(sigma, l.rows + 3, sy);
  const V xx = dot3(l.rows, sx) + S(kLowPass), xy = dot3(l.rows, sy), yy = dot3(l.rows + 3, sy) + S(kLowPass);
  const V det = xx * yy - xy * xy, inv_det = S(1) / det;
  out.cov[0] = xx, out.cov[1] = xy, out.cov[2] = yy;
  out.conic[0] = yy * inv_det, out.conic[1] = V{} - xy * inv_det, out.conic[2] = xx * inv_det;
  const V mid = S(0.5) * (xx + yy), gap = lane_sqrt(lane_max(mid * mid - det, V{} + S(0.1)));
  out.extent = S(kRadiusSigmas) * lane_sqrt(mid + gap);
  return lane_and(lane_less(V{} + S(kNear), t[2]), lane_less(V{}, det));
}

/// Adds to dL_dmean and writes dL_dsigma from the derivatives with respect to the 2D mean (pixels), the 2D covariance and the
/// depth.
template <class V>
GS_HD void project_backward(const Camera<Scalar<V>>& camera, const V* mean, const V* sigma, const V* dL_dmean2d,
                            const V* dL_dcov2d, V dL_ddepth, V* dL_dmean, V* dL_dsigma) {
  using S = Scalar<V>;
  V t[3];
  to_view(camera.view, mean, t);
  const Linearised<V> l = linearise(camera, t);
  const V *r0 = l.rows, *r1 = l.rows + 3;
  const V g00 = dL_dcov2d[0], g01 = dL_dcov2d[1], g11 = dL_dcov2d[2];

  // Sigma' = T Sigma T^T: dL_dSigma = T^T G T and dL_dT = 2 G T Sigma.
  int n = 0;
  for (int i = 0; i < 3; ++i)
    for (int j = i; j < 3; ++j)
      dL_dsigma[n++] = g00 * r0[i] * r0[j] + g01 * (r0[i] * r1[j] + r1[i] * r0[j]) + g11 * r1[i] * r1[j];
  V sx[3], sy[3], dL_dr0[3], dL_dr1[3];
  symmetric_times(sigma, r0, sx);
  symmetric_times(sigma, r1, sy);
  for (int j = 0; j < 3; ++j) {
    dL_dr0[j] = S(2) * (g00 * sx[j] + g01 * sy[j]);
    dL_dr1[j] = S(2) * (g01 * sx[j] + g11 * sy[j]);
  }

  // T = J W, J = [fx/z, 0, -fx x/z^2; 0, fy/z, -fy y/z^2]; a clamped x = limit * z moves with z alone.
  V dL_dj00 = {}, dL_dj02 = {}, dL_dj11 = {}, dL_dj12 = {};
  for (int j = 0; j < 3; ++j) {
    dL_dj00 += dL_dr0[j] * camera.view[4 * j];
    dL_dj02 += dL_dr0[j] * camera.view[4 * j + 2];
    dL_dj11 += dL_dr1[j] * camera.view[4 * j + 1];
    dL_dj12 += dL_dr1[j] * camera.view[4 * j + 2];
  }
  const V inv_z = S(1) / l.t[2], inv_z2 = inv_z * inv_z;
  const S fx = camera.focal_x, fy = camera.focal_y;
  const V along_x = fx * inv_z2 * dL_dj02, along_y = fy * inv_z2 * dL_dj12;  // -dL_dt where x and y are not clamped
  const V from_x = l.t[0] * inv_z * along_x, from_y = l.t[1] * inv_z * along_y;
  V dL_dt[3];
  dL_dt[0] = lane_select(l.outside_x, V{}, V{} - along_x);
  dL_dt[1] = lane_select(l.outside_y, V{}, V{} - along_y);
  dL_dt[2] = dL_ddepth - inv_z2 * (fx * dL_dj00 + fy * dL_dj11) + from_x + from_y + lane_select(l.outside_x, V{}, from_x) +
             lane_select(l.outside_y, V{}, from_y);
  for (int i = 0; i < 3; ++i) dL_dmean[i] += dot3(camera.view + 4 * i, dL_dt);

  // Perspective division of the mean.
  const V gx = dL_dmean2d[0] * S(0.5 * camera.width), gy = dL_dmean2d[1] * S(0.5 * camera.height);
  V clip[4];
  to_clip(camera.proj, mean, clip);
  const V inv_w = S(1) / (clip[3] + S(1e-7));
  const V dL_dw = V{} - (gx * clip[0] + gy * clip[1]) * inv_w * inv_w;
  for (int i = 0; i < 3; ++i)
    dL_dmean[i] += inv_w * (gx * camera.proj[4 * i] + gy * camera.proj[4 * i + 1]) + dL_dw * camera.proj[4 * i + 3];
}

/// dL_dcov of K = cov^-1 from S = sum_p dL_dpower_p d_p d_p^T, where power = -d^T K d / 2: dL_dcov = K S K / 2.
template <class V>
GS_HD void conic_backward(const V* conic, V s_xx, V s_xy, V s_yy, V* dL_dcov) {
  const V a = conic[0], b = conic[1], c = conic[2];
  const V u0 = a * s_xx + b * s_xy, u1 = a * s_xy + b * s_yy;  // first row of K S
  const V v0 = b * s_xx + c * s_xy, v1 = b * s_xy + c * s_yy;  // second row
  const Scalar<V> half = 0.5;
  dL_dcov[0] = half * (u0 * a + u1 * b);
  dL_dcov[1] = half * (u0 * b + u1 * c);
  dL_dcov[2] = half * (v0 * b + v1 * c);
}

}  // namespace gs
