// Where a projected Gaussian is at least 1/255 opaque: an ellipse, its extent in pixel rows, and the tiles that it reaches.
#pragma once

#include <math.h>

#include "config.h"
#include "lanes.h"

namespace gs {

// A packed row begins with what blending and culling need of a Gaussian.
constexpr int kMeanX = 0, kMeanY = 1;                 // pixels
constexpr int kPowerA = 2, kPowerB = 3, kPowerC = 4;  // -a/2, -b, -c/2 of the conic, times log2(e): alpha is a power of 2
constexpr int kOpacity = 5;
// The ellipse alpha >= 1/255 relative to the mean: at height y its chord runs from slope * y - h to slope * y + h with
// h = kHalfChord * sqrt(1 - (y / kExtentY)^2); it is widest to the right at kWidestY and to the left at -kWidestY.
constexpr int kExtentY = 6, kHalfChord = 7, kSlope = 8, kWidestY = 9;
// Two entries on, what is blended (config.h); an encoding that lies with it follows behind the colour.
constexpr int kDepth = 12, kRgb = 13, kPackedRow = 16;

constexpr double kLog2E = 1.4426950408889634;

/// Fills the entries of a packed row that describe its power; `conic` is the inverse of the 2D covariance (xx, xy, yy).
template <class V>
GS_HD void pack_power(const V* conic, V* row) {
  const Scalar<V> half = Scalar<V>(-0.5 * kLog2E);
  row[kPowerA] = half * conic[0], row[kPowerB] = 2 * half * conic[1], row[kPowerC] = half * conic[2];
}

/// The conic again.
template <class V>
GS_HD void unpack_conic(const V* row, V* conic) {
  const Scalar<V> once = Scalar<V>(-1 / kLog2E), twice = 2 * once;
  conic[0] = twice * row[kPowerA], conic[1] = once * row[kPowerB], conic[2] = twice * row[kPowerC];
}

/// Fills the entries of a packed row that describe its ellipse, from its opacity; `cov` is the 2D covariance.
template <class V>
GS_HD void pack_ellipse(const V* cov, const V* conic, V* row) {
  using S = Scalar<V>;
  // d^T conic d <= 2 ln(255 opacity); the margin keeps rounding from cutting a pixel that the alpha test keeps
  const V level = S(2) * lane_log(row[kOpacity] * S(255)) + S(1e-3), nothing = V{} - S(1);
  const auto visible = lane_less(V{}, level);  // false for NaN too
  row[kExtentY] = lane_select(visible, lane_sqrt(level * cov[2]), nothing);
  row[kHalfChord] = lane_select(visible, lane_sqrt(level / conic[0]), nothing);
  row[kSlope] = V{} - conic[1] / conic[0];
  row[kWidestY] = lane_select(visible, cov[1] * lane_sqrt(level / cov[0]), V{});
}

constexpr double kSlack = 1e-2;  // pixels; the rounding of means and extents is far below it

/// The x-interval [lo, hi], in pixels, that the ellipse covers for pixel rows y0 to y1; false where it covers nothing.
template <class T>
GS_HD bool ellipse_span(const T* row, T y0, T y1, T& lo, T& hi) {
  const T extent = row[kExtentY], widest = row[kWidestY];
  y0 = y0 - row[kMeanY] - T(kSlack), y1 = y1 - row[kMeanY] + T(kSlack);
  y0 = y0 > -extent ? y0 : -extent;
  y1 = y1 < extent ? y1 : extent;
  const T right = widest < y0 ? y0 : widest > y1 ? y1 : widest, left = -widest < y0 ? y0 : -widest > y1 ? y1 : -widest;
  const T u = right / extent, v = left / extent, rest_u = 1 - u * u, rest_v = 1 - v * v;
  hi = row[kMeanX] + row[kSlope] * right + row[kHalfChord] * sqrt(rest_u > 0 ? rest_u : T(0)) + T(kSlack);
  lo = row[kMeanX] + row[kSlope] * left - row[kHalfChord] * sqrt(rest_v > 0 ? rest_v : T(0)) - T(kSlack);
  return y0 <= y1;
}

/// Tiles [x0, x1) x [y0, y1) of 3DGS's 3-sigma box.
struct TileBox {
  int x0, y0, x1, y1;
  GS_HD bool empty() const { return x0 >= x1 || y0 >= y1; }
};

/// Pixels to tiles, within [0, count].
template <class T>
GS_HD int tile_of(T v, int count) {
  const int t = int(v / kTile);
  return t < 0 ? 0 : t > count ? count : t;
}

template <class T>
GS_HD TileBox tile_box(const T* mean, int radius, int tiles_x, int tiles_y) {
  const T bound = T(1 << 24);  // keeps the conversions to int defined
  if (!(mean[0] > -bound && mean[0] < bound && mean[1] > -bound && mean[1] < bound)) return {0, 0, 0, 0};
  const T r = T(radius < (1 << 24) ? radius : (1 << 24));
  return {tile_of(mean[0] - r, tiles_x), tile_of(mean[1] - r, tiles_y), tile_of(mean[0] + r + (kTile - 1), tiles_x),
          tile_of(mean[1] + r + (kTile - 1), tiles_y)};
}

/// The tiles [begin, end) of tile row `ty` that a packed Gaussian reaches: those of its box without those in which every alpha
/// is below 1/255.
template <class T>
GS_HD void tile_row_span(const T* row, int box_x0, int box_x1, int ty, int& begin, int& end) {
  begin = end = 0;
  T lo, hi;
  if (!ellipse_span(row, T(ty * kTile), T(ty * kTile + kTile - 1), lo, hi)) return;
  lo = ceil(lo), hi = floor(hi);
  if (!(lo <= hi && hi >= 0 && lo < T(box_x1 * kTile))) return;
  const int first = lo > 0 ? int(lo) / kTile : 0, last = hi < T(box_x1 * kTile) ? int(hi) / kTile : box_x1 - 1;
  begin = first > box_x0 ? first : box_x0, end = last + 1 < box_x1 ? last + 1 : box_x1;
}

/// Calls visit(tile_x_begin, tile_x_end, tile_y) for every row of tiles that a packed Gaussian reaches.
template <class T, class Visit>
GS_HD void for_tile_rows(const T* row, TileBox box, Visit visit) {
  for (int ty = box.y0; ty < box.y1; ++ty) {
    int begin, end;
    tile_row_span(row, box.x0, box.x1, ty, begin, end);
    if (begin < end) visit(begin, end, ty);
  }
}

}  // namespace gs
