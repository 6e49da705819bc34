// The per-Gaussian stages: everything before the tiles (forward) and after them (backward), sixteen Gaussians at a time.
#pragma once

#include "frame.h"
#include "gs/projection.h"
#include "gs/sh.h"
#include "gs/tensors.h"
#include "packed.h"
#include "sixteen.h"

namespace gs {
namespace GS_ISA {
namespace {

template <class T>
Camera<T> camera_of(const View<T>& view) {
  Camera<T> c;
  memcpy(c.view, view.view, sizeof c.view);
  memcpy(c.proj, view.proj, sizeof c.proj);
  memcpy(c.position, view.position, sizeof c.position);
  c.tan_fov_x = view.tan_fov_x, c.tan_fov_y = view.tan_fov_y;
  c.focal_x = view.focal_x, c.focal_y = view.focal_y;
  c.width = view.width, c.height = view.height;
  return c;
}

/// Where and of what shape sixteen Gaussians are.
template <class T>
struct Placed {
  using V = typename Lanes<T>::V;
  V mean[3], sigma[6], scale[3], rotation[4];  // the last two where no covariances are given

  GS_HD Placed(const Gaussians<T>& in, Sixteen<T> g) {
    g.template load<3>(in.means, 3, mean);
    if (in.covariances) {
      g.template load<6>(in.covariances, 6, sigma);
      return;
    }
    g.template load<3>(in.scales, 3, scale), g.template load<4>(in.rotations, 4, rotation);
    covariance_3d(scale, in.scale_modifier, rotation, sigma);
  }
};

template <int kDegree>
struct Degree {
  static constexpr int kBasis = sh_basis_count(kDegree), kRest = 3 * (kBasis - 1);
};

/// Calls body(Degree<degree>()).
template <class Body>
GS_HD void with_degree(int degree, Body body) {
  switch (degree) {
    case 0:
      return body(Degree<0>());
    case 1:
      return body(Degree<1>());
    case 2:
      return body(Degree<2>());
    default:
      return body(Degree<3>());
  }
}

/// r g b before the clamp at 0, from spherical harmonics.
template <class T, int kDegree, class V>
GS_HD void sh_color(const Gaussians<T>& in, const Camera<T>& camera, Sixteen<T> g, const V* mean, Degree<kDegree> degree,
                    V* rgb) {
  V direction[3], basis[kMaxShBasis], dc[3], rest[degree.kRest + 1];
  unit_direction(mean, camera.position, direction);
  sh_basis(kDegree, direction, basis);
  g.template load<3>(in.sh_dc, in.sh_dc_stride, dc);
  if constexpr (kDegree > 0) g.template load<degree.kRest>(in.sh_rest, in.sh_rest_stride, rest);
  for (int c = 0; c < 3; ++c) rgb[c] = basis[0] * dc[c] + T(0.5);
  for (int k = 1; k < degree.kBasis; ++k)
    for (int c = 0; c < 3; ++c) rgb[c] += basis[k] * rest[3 * (k - 1) + c];
}

/// Fills the colour of packed rows; bit i of the result is set where that of lane i is not finite.
template <class T, class V>
unsigned pack_color(const Gaussians<T>& in, const Camera<T>& camera, Sixteen<T> g, const V* mean, V* rgb) {
  if (in.colors)
    g.template load<3>(in.colors, 3, rgb);
  else
    with_degree(in.sh_degree, [&](auto degree) { sh_color(in, camera, g, mean, degree, rgb); });
  const unsigned bad = not_finite<T>(rgb, 3);
  if (!in.colors)
    for (int c = 0; c < 3; ++c) rgb[c] = lane_max(rgb[c], V{});
  return bad;
}

/// Copies an encoding into its packed row; false where it holds NaN or Inf.
template <class T>
GS_HD bool pack_identity(const Gaussians<T>& in, int64_t i, T* row) {
  using V = typename Lanes<T>::V;
  const T* from = in.identity + i * in.num_identity;
  V sum = {};
  for (int c = 0; c < in.num_identity; c += 16) {
    V part = {};
    const int count = in.num_identity - c;
    count < 16 ? memcpy(&part, from + c, sizeof(T) * count) : memcpy(&part, from + c, sizeof part);
    count < 16 ? memcpy(row + kPackedRow + c, &part, sizeof(T) * count) : memcpy(row + kPackedRow + c, &part, sizeof part);
    sum += part * T(0);
  }
  return !not_finite<T>(&sum, 1);
}

/// Fills `rows`; returns how many tiles they hold.
template <class T>
GS_HD int list_tile_rows(const T* packed, TileBox box, TileRows& rows) {
  int tiles = 0;
  rows.count = 0;
  for_tile_rows(packed, box, [&](int begin, int end, int y) {
    tiles += end - begin;
    if (rows.count < TileRows::kMost) rows.spans[rows.count] = {y, begin, end};
    if (rows.count <= TileRows::kMost) ++rows.count;
  });
  return tiles;
}

/// Fills radii and tile counts, and the packed rows of the Gaussians that are visible; returns bits of `Invalid`.
template <class T>
int pack_sixteen(Frame& frame, const Gaussians<T>& in, const Camera<T>& camera, Sixteen<T> g, int32_t* radii) {
  using V = typename Lanes<T>::V;
  const int stride = row_stride(in.num_identity);
  const Placed<T> placed(in, g);
  V row[16] = {};
  g.template load<1>(in.opacities, 1, &row[kOpacity]);
  int invalid = (not_finite<T>(placed.mean, 3) ? kMeans : 0) | (not_finite<T>(&row[kOpacity], 1) ? kOpacities : 0) |
                (not_finite<T>(placed.sigma, 6) ? kShape : 0);
  Projected<V> p;
  const unsigned in_front = lane_bits(project(camera, placed.mean, placed.sigma, p));
  unsigned visible = 0;
  TileBox box[16];
  for (int lane = 0; lane < g.count; ++lane) {
    const T mean[2] = {p.mean[0][lane], p.mean[1][lane]};
    const int radius = in_front >> lane & 1 ? radius_of(T(p.extent[lane])) : 0;
    box[lane] = radius > 0 ? tile_box(mean, radius, frame.tiles_x, frame.tiles_y) : TileBox{0, 0, 0, 0};
    visible |= unsigned(!box[lane].empty()) << lane;
    radii[g.first + lane] = box[lane].empty() ? 0 : radius;
    frame.tile_count[g.first + lane] = 0;
  }
  if (!visible) return invalid;
  row[kMeanX] = p.mean[0], row[kMeanY] = p.mean[1], row[kDepth] = p.depth;
  pack_power(p.conic, row);
  pack_ellipse(p.cov, p.conic, row);
  if (pack_color(in, camera, g, placed.mean, row + kRgb) & visible) invalid |= kColor;
  transpose(row);
  for (; visible; visible &= visible - 1) {
    const int lane = __builtin_ctz(visible);
    T* to = frame.packed.as<T>() + (g.first + lane) * stride;
    memcpy(to, &row[lane], sizeof row[lane]);
    if (!pack_identity(in, g.first + lane, to)) invalid |= kIdentity;
    frame.tile_count[g.first + lane] = list_tile_rows(to, box[lane], frame.tile_rows[g.first + lane]);
  }
  return invalid;
}

/// Calls body(sixteen) for all Gaussians; the same sixteen come together for any number of threads.
template <class T, class Body>
int for_each_sixteen(const Inputs& in, Body body) {
  int bits = 0;
#pragma omp parallel for num_threads(in.threads) schedule(static, 16) reduction(| : bits)
  for (int64_t begin = 0; begin < in.num_gaussians; begin += 16) bits |= body(Sixteen<T>(begin, in.num_gaussians));
  return bits;
}

template <class T>
int pack_gaussians(Frame& frame, const Inputs& in, int32_t* radii) {
  const Gaussians<T> gaussians(in);
  const Camera<T> camera = camera_of(View<T>(in));
  frame.packed.resize(in.num_gaussians * row_stride(in.num_identity) * sizeof(T));
  frame.tile_count.resize(in.num_gaussians), frame.tile_rows.resize(in.num_gaussians);
  return for_each_sixteen<T>(in, [&](Sixteen<T> g) { return pack_sixteen(frame, gaussians, camera, g, radii); });
}

/// The gradients of the harmonics; adds what the direction passes on to dL_dmean.
template <class T, int kDegree, class V, class M>
GS_HD void sh_backward(const Gaussians<T>& in, const GaussianGradients<T>& grad, const Camera<T>& camera, Sixteen<T> g, M touched,
                       const V* mean, const V* dL_drgb, Degree<kDegree> degree, V* dL_dmean) {
  V direction[3], basis[kMaxShBasis], dL_dbasis[kMaxShBasis], dL_ddirection[3], dL_ddc[3], rest[degree.kRest + 1];
  const V inverse_length = unit_direction(mean, camera.position, direction);
  sh_basis(kDegree, direction, basis);
  for (int c = 0; c < 3; ++c) dL_ddc[c] = basis[0] * dL_drgb[c];
  g.template store<3>(grad.sh_dc, grad.sh_dc_stride, touched, dL_ddc);
  if constexpr (kDegree > 0) {
    g.template load<degree.kRest>(in.sh_rest, in.sh_rest_stride, rest);
    for (int k = 1; k < degree.kBasis; ++k) {
      V* coefficient = rest + 3 * (k - 1);
      dL_dbasis[k] = dot3(coefficient, dL_drgb);
      for (int c = 0; c < 3; ++c) coefficient[c] = basis[k] * dL_drgb[c];  // from here on its gradient
    }
    g.template store<degree.kRest>(grad.sh_rest, grad.sh_rest_stride, touched, rest);
    sh_basis_backward(kDegree, direction, dL_dbasis, dL_ddirection);
    const V along = dot3(direction, dL_ddirection);
    for (int j = 0; j < 3; ++j) dL_dmean[j] += inverse_length * (dL_ddirection[j] - along * direction[j]);
  }
  const int left = 3 * in.num_rest - degree.kRest;  // degrees not reached yet
  for (int lane = 0; grad.sh_rest && left > 0 && lane < g.count; ++lane)
    memset(grad.sh_rest + (g.first + lane) * grad.sh_rest_stride + degree.kRest, 0, sizeof(T) * left);
}

/// The gradients of the colour's inputs from that of the packed colour.
template <class T, class V, class M>
void color_backward(const Gaussians<T>& in, const GaussianGradients<T>& grad, const Camera<T>& camera, Sixteen<T> g, M touched,
                    const V* mean, const V* rgb, const V* dL_drgb, V* dL_dmean) {
  if (in.colors) return g.template store<3>(grad.colors, 3, touched, dL_drgb);
  V dL_dclamped[3];
  for (int c = 0; c < 3; ++c) dL_dclamped[c] = lane_select(lane_less(V{}, rgb[c]), dL_drgb[c], V{});
  with_degree(in.sh_degree, [&](auto degree) { sh_backward(in, grad, camera, g, touched, mean, dL_dclamped, degree, dL_dmean); });
}

/// From the packed rows of sixteen Gaussians, and the sums over their gradient rows, to the gradients of their parameters.
template <class T, class V, class M>
void chain_rule(const Gaussians<T>& in, const GaussianGradients<T>& grad, const Camera<T>& camera, Sixteen<T> g, M touched,
                const V* row, const V* sum) {
  V conic[3], dL_dcov2d[3], dL_dsigma[6], dL_dmean[3] = {};
  unpack_conic(row, conic);
  const V dL_dmean2d[2] = {V{} - conic[0] * sum[kQx] - conic[1] * sum[kQy], V{} - conic[1] * sum[kQx] - conic[2] * sum[kQy]};
  conic_backward(conic, sum[kQxx], sum[kQxy], sum[kQyy], dL_dcov2d);
  const Placed<T> placed(in, g);
  project_backward(camera, placed.mean, placed.sigma, dL_dmean2d, dL_dcov2d, sum[kGradDepth], dL_dmean, dL_dsigma);
  const V dL_drgb[3] = {sum[kGradRgb], sum[kGradRgb + 2], sum[kGradRgb + 4]};
  color_backward(in, grad, camera, g, touched, placed.mean, row + kRgb, dL_drgb, dL_dmean);
  g.template store<3>(grad.means, 3, touched, dL_dmean);
  // in NDC, as 3DGS's densification statistic expects
  const V means2d[3] = {dL_dmean2d[0] * T(0.5 * camera.width), dL_dmean2d[1] * T(0.5 * camera.height), V{}};
  g.template store<3>(grad.means2d, 3, touched, means2d);
  const V dL_dopacity = sum[kQ] / row[kOpacity];
  g.template store<1>(grad.opacities, 1, touched, &dL_dopacity);
  if (in.covariances) {
    const V two = V{} + T(2);
    dL_dsigma[1] *= two, dL_dsigma[2] *= two, dL_dsigma[4] *= two;  // each stands for two entries
    return g.template store<6>(grad.covariances, 6, touched, dL_dsigma);
  }
  V dL_dscale[3], dL_drotation[4];
  covariance_3d_backward(placed.scale, in.scale_modifier, placed.rotation, dL_dsigma, dL_dscale, dL_drotation);
  g.template store<3>(grad.scales, 3, touched, dL_dscale), g.template store<4>(grad.rotations, 4, touched, dL_drotation);
}

/// Sums the gradient rows of Gaussian i in the order of its tiles: `head` takes what is common to all, the encoding's part goes
/// to `dL_didentity` (N, num_identity). False where no pixel saw it.
template <class T, class V>
bool sum_rows(const Frame& frame, int num_identity, T* dL_didentity, int64_t i, V& head) {
  const int groups = gradient_stride(num_identity) / 16;
  const V* rows = frame.packed_gradients.as<const V>();
  V sum[kMaxStride / 16] = {};
  bool touched = false;
  const int count = frame.tile_count[i];
  const int64_t first = count > 0 ? frame.first_row[i] : 0;
  for (int64_t r = first; r < first + count; ++r) {
    if (frame.hits[frame.place_of_row[r]] == 0) continue;
    touched = true;
    for (int k = 0; k < groups; ++k) sum[k] += rows[r * groups + k];
  }
  head = sum[0];
  if (num_identity == 16)  // a constant size makes the copy one move
    memcpy(dL_didentity + 16 * i, sum + 1, sizeof(T) * 16);
  else if (num_identity > 0)
    memcpy(dL_didentity + i * num_identity, sum + 1, sizeof(T) * num_identity);
  return touched;
}

template <class T>
void gaussians_backward(Frame& frame, const Inputs& in, const InputGradients& gradients) {
  using V = typename Lanes<T>::V;
  const Gaussians<T> gaussians(in);
  const GaussianGradients<T> grad(gradients);
  const Camera<T> camera = camera_of(View<T>(in));
  const T* packed = frame.packed.as<const T>();
  for_each_sixteen<T>(in, [&](Sixteen<T> g) {
    V sum[16] = {}, row[16];
    unsigned touched = 0;
    for (int lane = 0; lane < g.count; ++lane)
      touched |= unsigned(sum_rows(frame, in.num_identity, grad.identity, g.first + lane, sum[lane])) << lane;
    for (int lane = 0; lane < 16; ++lane)
      memcpy(&row[lane], touched >> lane & 1 ? packed + (g.first + lane) * row_stride(in.num_identity) : kNowhere<T>,
             sizeof row[lane]);
    transpose(sum), transpose(row);
    chain_rule(gaussians, grad, camera, g, lanes_of<T>(touched), row, sum);
    return 0;
  });
}

}  // namespace
}  // namespace GS_ISA
}  // namespace gs
