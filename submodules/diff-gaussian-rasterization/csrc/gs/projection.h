// Projection of one 3D Gaussian to the image plane (EWA splatting) and its derivatives, templated on the scalar.
//
// Matrices arrive as 3DGS stores them: row vectors, i.e. p_view[j] = sum_i p[i] * view[4 * i + j]. Symmetric 3x3 matrices
// are (xx, xy, xz, yy, yz, zz), symmetric 2x2 ones (xx, xy, yy). dL_dS of a symmetric matrix S is stored as the symmetric
// matrix G with dL = sum_ij G_ij dS_ij, so that an off-diagonal parameter, which stands for two entries, has derivative 2 G_ij.
#pragma once

#include <math.h>

#include "config.h"

namespace gs {

template <class T>
struct Camera {
  T view[16], proj[16], position[3];
  T tan_fov_x, tan_fov_y, focal_x, focal_y;
  int width, height;
};

template <class T>
struct Projected {
  T mean[2];   // pixels
  T cov[3];    // 2D covariance with the low-pass filter, px^2
  T conic[3];  // its inverse
  T depth;     // view-space z
  int radius;  // px, 3 sigma along the longest axis
};

template <class T>
GS_HD T dot3(const T* a, const T* b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

template <class T>
GS_HD void to_view(const T* view, const T* p, T* out) {
  for (int j = 0; j < 3; ++j) out[j] = p[0] * view[j] + p[1] * view[4 + j] + p[2] * view[8 + j] + view[12 + j];
}

/// Rotation matrix, row-major, of the quaternion (w, x, y, z), which the caller has normalised.
template <class T>
GS_HD void quaternion_to_matrix(const T* q, T* R) {
  const T w = q[0], x = q[1], y = q[2], z = q[3];
  R[0] = 1 - 2 * (y * y + z * z), R[1] = 2 * (x * y - w * z), R[2] = 2 * (x * z + w * y);
  R[3] = 2 * (x * y + w * z), R[4] = 1 - 2 * (x * x + z * z), R[5] = 2 * (y * z - w * x);
  R[6] = 2 * (x * z - w * y), R[7] = 2 * (y * z + w * x), R[8] = 1 - 2 * (x * x + y * y);
}

template <class T>
GS_HD void quaternion_to_matrix_backward(const T* q, const T* G, T* dL_dq) {
  const T w = q[0], x = q[1], y = q[2], z = q[3];
  dL_dq[0] = 2 * (x * (G[7] - G[5]) + y * (G[2] - G[6]) + z * (G[3] - G[1]));
  dL_dq[1] = 2 * (y * (G[1] + G[3]) + z * (G[2] + G[6]) + w * (G[7] - G[5])) - 4 * x * (G[4] + G[8]);
  dL_dq[2] = 2 * (x * (G[1] + G[3]) + z * (G[5] + G[7]) + w * (G[2] - G[6])) - 4 * y * (G[0] + G[8]);
  dL_dq[3] = 2 * (x * (G[2] + G[6]) + y * (G[5] + G[7]) + w * (G[3] - G[1])) - 4 * z * (G[0] + G[4]);
}

/// Sigma = (R S)(R S)^T with S = diag(modifier * scale).
template <class T>
GS_HD void covariance_3d(const T* scale, T modifier, const T* q, T* sigma) {
  T R[9];
  quaternion_to_matrix(q, R);
  T v[3];
  for (int k = 0; k < 3; ++k) v[k] = modifier * scale[k] * modifier * scale[k];
  int n = 0;
  for (int i = 0; i < 3; ++i)
    for (int j = i; j < 3; ++j)
      sigma[n++] = R[3 * i] * v[0] * R[3 * j] + R[3 * i + 1] * v[1] * R[3 * j + 1] + R[3 * i + 2] * v[2] * R[3 * j + 2];
}

template <class T>
GS_HD void covariance_3d_backward(const T* scale, T modifier, const T* q, const T* dL_dsigma, T* dL_dscale, T* dL_dq) {
  T R[9], dL_dR[9];
  quaternion_to_matrix(q, R);
  const T G[9] = {dL_dsigma[0], dL_dsigma[1], dL_dsigma[2], dL_dsigma[1], dL_dsigma[3],
                  dL_dsigma[4], dL_dsigma[2], dL_dsigma[4], dL_dsigma[5]};
  for (int k = 0; k < 3; ++k) {
    const T s = modifier * scale[k];
    T dL_ds = 0;
    for (int i = 0; i < 3; ++i) {
      const T dL_dM = 2 * s * (G[3 * i] * R[k] + G[3 * i + 1] * R[3 + k] + G[3 * i + 2] * R[6 + k]);
      dL_ds += dL_dM * R[3 * i + k];
      dL_dR[3 * i + k] = dL_dM * s;
    }
    dL_dscale[k] = modifier * dL_ds;
  }
  quaternion_to_matrix_backward(q, dL_dR, dL_dq);
}

/// The 2x3 matrix T = J W that takes a 3D covariance to the image: J linearises the perspective at the view-space point t,
/// whose x / z and y / z are clamped to 1.3 tan(fov / 2) first; W is the rotation of the view matrix.
template <class T>
struct Linearised {
  T t[3];         // clamped view-space point
  bool inside_x, inside_y;
  T rows[6];
};

template <class T>
GS_HD Linearised<T> linearise(const Camera<T>& camera, const T* view_point) {
  Linearised<T> l;
  const T z = view_point[2], inv_z = 1 / z;
  const T limit_x = T(kFrustumClamp) * camera.tan_fov_x, limit_y = T(kFrustumClamp) * camera.tan_fov_y;
  const T x = view_point[0] * inv_z, y = view_point[1] * inv_z;
  l.inside_x = x >= -limit_x && x <= limit_x;
  l.inside_y = y >= -limit_y && y <= limit_y;
  const T cx = x < -limit_x ? -limit_x : x > limit_x ? limit_x : x;
  const T cy = y < -limit_y ? -limit_y : y > limit_y ? limit_y : y;
  l.t[0] = cx * z, l.t[1] = cy * z, l.t[2] = z;
  const T jx = camera.focal_x * inv_z, jy = camera.focal_y * inv_z;
  for (int j = 0; j < 3; ++j) {
    l.rows[j] = jx * (camera.view[4 * j] - cx * camera.view[4 * j + 2]);
    l.rows[3 + j] = jy * (camera.view[4 * j + 1] - cy * camera.view[4 * j + 2]);
  }
  return l;
}

template <class T>
GS_HD void symmetric_times(const T* S, const T* v, T* out) {
  out[0] = S[0] * v[0] + S[1] * v[1] + S[2] * v[2];
  out[1] = S[1] * v[0] + S[3] * v[1] + S[4] * v[2];
  out[2] = S[2] * v[0] + S[4] * v[1] + S[5] * v[2];
}

/// False where the Gaussian is behind the near plane or degenerate. `sigma` is its 3D covariance.
template <class T>
GS_HD bool project(const Camera<T>& camera, const T* mean, const T* sigma, Projected<T>& out) {
  T t[3];
  to_view(camera.view, mean, t);
  if (!(t[2] > T(kNear))) return false;
  T hom[4];
  for (int j = 0; j < 4; ++j)
    hom[j] = mean[0] * camera.proj[j] + mean[1] * camera.proj[4 + j] + mean[2] * camera.proj[8 + j] + camera.proj[12 + j];
  const T inv_w = 1 / (hom[3] + T(1e-7));
  out.mean[0] = ((hom[0] * inv_w + 1) * camera.width - 1) * T(0.5);
  out.mean[1] = ((hom[1] * inv_w + 1) * camera.height - 1) * T(0.5);
  out.depth = t[2];

  const Linearised<T> l = linearise(camera, t);
  T sx[3], sy[3];
  symmetric_times(sigma, l.rows, sx);
  symmetric_times(sigma, l.rows + 3, sy);
  const T xx = dot3(l.rows, sx) + T(kLowPass), xy = dot3(l.rows, sy), yy = dot3(l.rows + 3, sy) + T(kLowPass);
  const T det = xx * yy - xy * xy;
  if (!(det > 0)) return false;
  const T inv_det = 1 / det;
  out.cov[0] = xx, out.cov[1] = xy, out.cov[2] = yy;
  out.conic[0] = yy * inv_det, out.conic[1] = -xy * inv_det, out.conic[2] = xx * inv_det;
  const T mid = T(0.5) * (xx + yy), gap = mid * mid - det;
  out.radius = int(ceil(T(kRadiusSigmas) * sqrt(mid + sqrt(gap > T(0.1) ? gap : T(0.1)))));
  return true;
}

/// Adds to dL_dmean and writes dL_dsigma from the derivatives with respect to the 2D mean (pixels), the 2D covariance and the depth.
template <class T>
GS_HD void project_backward(const Camera<T>& camera, const T* mean, const T* sigma, const T* dL_dmean2d, const T* dL_dcov2d,
                            T dL_ddepth, T* dL_dmean, T* dL_dsigma) {
  T t[3];
  to_view(camera.view, mean, t);
  const Linearised<T> l = linearise(camera, t);
  const T *r0 = l.rows, *r1 = l.rows + 3;
  const T g00 = dL_dcov2d[0], g01 = dL_dcov2d[1], g11 = dL_dcov2d[2];

  // Sigma' = T Sigma T^T: dL_dSigma = T^T G T and dL_dT = 2 G T Sigma.
  int n = 0;
  for (int i = 0; i < 3; ++i)
    for (int j = i; j < 3; ++j)
      dL_dsigma[n++] = g00 * r0[i] * r0[j] + g01 * (r0[i] * r1[j] + r1[i] * r0[j]) + g11 * r1[i] * r1[j];
  T sx[3], sy[3], dL_dr0[3], dL_dr1[3];
  symmetric_times(sigma, r0, sx);
  symmetric_times(sigma, r1, sy);
  for (int j = 0; j < 3; ++j) {
    dL_dr0[j] = 2 * (g00 * sx[j] + g01 * sy[j]);
    dL_dr1[j] = 2 * (g01 * sx[j] + g11 * sy[j]);
  }

  // T = J W, J = [fx/z, 0, -fx x/z^2; 0, fy/z, -fy y/z^2]; a clamped x = limit * z moves with z alone.
  T dL_dj00 = 0, dL_dj02 = 0, dL_dj11 = 0, dL_dj12 = 0;
  for (int j = 0; j < 3; ++j) {
    dL_dj00 += dL_dr0[j] * camera.view[4 * j];
    dL_dj02 += dL_dr0[j] * camera.view[4 * j + 2];
    dL_dj11 += dL_dr1[j] * camera.view[4 * j + 1];
    dL_dj12 += dL_dr1[j] * camera.view[4 * j + 2];
  }
  const T inv_z = 1 / l.t[2], inv_z2 = inv_z * inv_z;
  const T fx = camera.focal_x, fy = camera.focal_y;
  T dL_dt[3];
  dL_dt[0] = l.inside_x ? -fx * inv_z2 * dL_dj02 : T(0);
  dL_dt[1] = l.inside_y ? -fy * inv_z2 * dL_dj12 : T(0);
  dL_dt[2] = dL_ddepth - inv_z2 * (fx * dL_dj00 + fy * dL_dj11) +
             inv_z2 * inv_z * (fx * l.t[0] * dL_dj02 * (l.inside_x ? 2 : 1) + fy * l.t[1] * dL_dj12 * (l.inside_y ? 2 : 1));
  for (int i = 0; i < 3; ++i) dL_dmean[i] += dot3(camera.view + 4 * i, dL_dt);

  // Perspective division of the mean.
  const T gx = dL_dmean2d[0] * T(0.5) * camera.width, gy = dL_dmean2d[1] * T(0.5) * camera.height;
  T hom[4];
  for (int j = 0; j < 4; ++j)
    hom[j] = mean[0] * camera.proj[j] + mean[1] * camera.proj[4 + j] + mean[2] * camera.proj[8 + j] + camera.proj[12 + j];
  const T inv_w = 1 / (hom[3] + T(1e-7));
  const T dL_dw = -(gx * hom[0] + gy * hom[1]) * inv_w * inv_w;
  for (int i = 0; i < 3; ++i)
    dL_dmean[i] += inv_w * (gx * camera.proj[4 * i] + gy * camera.proj[4 * i + 1]) + dL_dw * camera.proj[4 * i + 3];
}

/// dL_dcov of K = cov^-1 from S = sum_p dL_dpower_p d_p d_p^T, where power = -d^T K d / 2: dL_dcov = K S K / 2.
template <class T>
GS_HD void conic_backward(const T* conic, T s_xx, T s_xy, T s_yy, T* dL_dcov) {
  const T a = conic[0], b = conic[1], c = conic[2];
  const T u0 = a * s_xx + b * s_xy, u1 = a * s_xy + b * s_yy;  // first row of K S
  const T v0 = b * s_xx + c * s_xy, v1 = b * s_xy + c * s_yy;  // second row
  dL_dcov[0] = T(0.5) * (u0 * a + u1 * b);
  dL_dcov[1] = T(0.5) * (u0 * b + u1 * c);
  dL_dcov[2] = T(0.5) * (v0 * b + v1 * c);
}

}  // namespace gs
