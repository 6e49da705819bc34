// The packed row of a visible Gaussian, as gs/ellipse.h has it with its encoding behind, so that one loop runs over all channels;
// and the gradient row of one of its tile instances.
#pragma once

#include "gs/ellipse.h"
#include "isa.h"

namespace gs {
namespace GS_ISA {
namespace {

// In a gradient row what is summed with the weights (depth, colour) and the sums over pixels of q = dL_dpower times
// 1, x, y, x^2, xy, y^2 alternate, so that one vector of (weight, q) pairs multiplies both; the encoding follows at 16. (x, y) is
// first relative to the tile's centre and, once the row is finished, mean - pixel.
constexpr int kGradDepth = 0, kGradRgb = 2, kGradEncoding = 16;  // channel c of the first four is at 2 * c
constexpr int kQ = 1, kQx = 3, kQy = 5, kQxx = 7, kQxy = 9, kQyy = 11;

constexpr int kMaxStride = 80;  // row_stride(kMaxIdentity) and gradient_stride(kMaxIdentity)

/// The packed row of a Gaussian that is nowhere: the stand-in where one is missing.
template <class T>
constexpr T kNowhere[kMaxStride] = {};

GS_HD constexpr int row_stride(int num_identity) { return kPackedRow + (num_identity + 15) / 16 * 16; }
GS_HD constexpr int gradient_stride(int num_identity) { return kGradEncoding + (num_identity + 15) / 16 * 16; }

/// For 16 packed rows, as lanes: bit k of reached[4 * j + i] is set where the ellipse of row k may reach block (i, j) of 4x4
/// pixels in the tile. `ellipse_span` for the tile's four rows of blocks.
template <class T>
GS_HD void blocks_reached(const T* const* rows, int tile_left, int tile_top, unsigned* reached) {
  using V = typename Lanes<T>::V;
  V m[16];
  for (int k = 0; k < 16; ++k) memcpy(&m[k], rows[k], sizeof m[k]);
  transpose(m);
  const V extent = m[kExtentY], inverse_extent = lane_divide(V{} + T(1), extent), half_chord = m[kHalfChord];
  const V left = m[kMeanX] - T(tile_left), top = T(tile_top) - m[kMeanY];
  for (int j = 0; j < 4; ++j) {
    const V y0 = lane_max(top + T(4 * j - kSlack), V{} - extent), y1 = lane_min(top + T(4 * j + 3 + kSlack), extent);
    auto chord_end = [&](T side) {  // 1: right, -1: left
      const V y = lane_min(lane_max(side * m[kWidestY], y0), y1), u = y * inverse_extent;
      const V root = lane_sqrt(lane_max(T(1) - u * u, V{}));
      return left + m[kSlope] * y + side * (half_chord * root + T(kSlack));
    };
    // Near the tile, so that rounding is defined; beyond it where the ellipse does not reach these rows.
    const V right = chord_end(1), near = lane_max(lane_min(chord_end(-1), V{} + T(16)), V{});
    const V start = lane_select(lane_less(y1, y0), V{} + T(16), lane_ceil<T>(near));
    for (int i = 0; i < 4; ++i) {
      const V begin = lane_max(start, V{} + T(4 * i)), end = lane_min(right, V{} + T(4 * i + 3));
      reached[4 * j + i] = lane_bits(lane_less(begin, end + T(1e-3)));  // a pixel at or after `begin`, not after `end`
    }
  }
}

}  // namespace
}  // namespace GS_ISA
}  // namespace gs
