// The packed row of a visible Gaussian, and the gradient row of one of its tile instances, which shares its channel layout.

constexpr int kMeanX = 0, kMeanY = 1;                 // pixels
constexpr int kPowerA = 2, kPowerB = 3, kPowerC = 4;  // -a/2, -b, -c/2 of the conic
constexpr int kOpacity = 5;
// The ellipse alpha >= 1/255 relative to the mean: at height y its chord runs from slope * y - h to slope * y + h with
// h = kHalfChord * sqrt(1 - (y / kExtentY)^2); it is widest to the right at kWidestY and to the left at -kWidestY.
constexpr int kExtentY = 6, kHalfChord = 7, kSlope = 8, kWidestY = 9;
constexpr int kDepth = 10, kRgb = 11, kEncoding = 14;  // what is blended: neighbours, so that one loop runs over all channels

// In a gradient row the first six entries are sums over pixels of q = dL_dpower times 1, x, y, x^2, xy, y^2, with (x, y) first
// relative to the tile's centre and, once the row is finished, mean - pixel.
constexpr int kQ = 0, kQx = 1, kQy = 2, kQxx = 3, kQxy = 4, kQyy = 5;

constexpr int kMaxIdentity = 64;
constexpr int kMaxStride = 80;  // row_stride(kMaxIdentity)

GS_HD constexpr int row_stride(int num_identity) { return (kEncoding + num_identity + 15) / 16 * 16; }

/// Fills the entries of a packed row that describe its ellipse; `cov` is the 2D covariance (xx, xy, yy).
template <class T>
GS_HD void pack_ellipse(const T* cov, T* row) {
  // d^T conic d <= 2 ln(255 opacity); the margin keeps rounding from cutting a pixel that the alpha test keeps
  const T level = 2 * log(row[kOpacity] * T(255)) + T(1e-3);
  const bool visible = level > 0;  // false for NaN too
  const T a = -2 * row[kPowerA];
  row[kExtentY] = visible ? sqrt(level * cov[2]) : T(-1);
  row[kHalfChord] = visible ? sqrt(level / a) : T(-1);
  row[kSlope] = row[kPowerB] / a;
  row[kWidestY] = visible ? cov[1] * sqrt(level / cov[0]) : T(0);
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
  bool empty() const { return x0 >= x1 || y0 >= y1; }
};

template <class T>
GS_HD TileBox tile_box(const T* mean, int radius, int tiles_x, int tiles_y) {
  const T bound = T(1 << 24);  // keeps the conversions to int defined
  if (!(mean[0] > -bound && mean[0] < bound && mean[1] > -bound && mean[1] < bound)) return {0, 0, 0, 0};
  const T r = T(radius < (1 << 24) ? radius : (1 << 24));
  auto tile = [](T v, int count) {
    const int t = int(v / kTile);
    return t < 0 ? 0 : t > count ? count : t;
  };
  return {tile(mean[0] - r, tiles_x), tile(mean[1] - r, tiles_y), tile(mean[0] + r + (kTile - 1), tiles_x),
          tile(mean[1] + r + (kTile - 1), tiles_y)};
}

/// Calls visit(tile_x_begin, tile_x_end, tile_y) for every row of tiles that a packed Gaussian reaches: the tiles of its box
/// without those in which every alpha is below 1/255.
template <class T, class Visit>
GS_HD void for_tile_rows(const T* row, TileBox box, Visit visit) {
  for (int ty = box.y0; ty < box.y1; ++ty) {
    T lo, hi;
    if (!ellipse_span(row, T(ty * kTile), T(ty * kTile + kTile - 1), lo, hi)) continue;
    lo = ceil(lo), hi = floor(hi);
    if (!(lo <= hi && hi >= 0 && lo < T(box.x1 * kTile))) continue;
    const int first = lo > 0 ? int(lo) / kTile : 0, last = hi < T(box.x1 * kTile) ? int(hi) / kTile : box.x1 - 1;
    const int begin = first > box.x0 ? first : box.x0, end = last + 1 < box.x1 ? last + 1 : box.x1;
    if (begin < end) visit(begin, end, ty);
  }
}

/// Bit 4 * j + i is set where the ellipse may reach block (i, j) of 4x4 pixels in the tile: `ellipse_span` for the tile's four
/// rows of blocks at once.
template <class T>
GS_HD int block_mask(const T* row, int tile_left, int tile_top) {
  typedef T W __attribute__((vector_size(4 * sizeof(T))));
  typedef decltype(W{} < W{}) I;
  const W band = {0, 4, 8, 12};
  const T extent = row[kExtentY], top = tile_top - row[kMeanY], inverse_extent = 1 / extent;
  W y0 = band + (top - T(kSlack)), y1 = band + (top + 3 + T(kSlack));
  y0 = y0 > -extent ? y0 : W{} - extent;
  y1 = y1 < extent ? y1 : W{} + extent;
  auto chord_end = [&](T side) {  // 1: right, -1: left
    W y = W{} + side * row[kWidestY];
    y = y < y0 ? y0 : y;
    y = y > y1 ? y1 : y;
    const W u = y * inverse_extent, rest = 1 - u * u;
    W root = rest > 0 ? rest : W{};
    for (int lane = 0; lane < 4; ++lane) root[lane] = sqrt(root[lane]);
    return (row[kMeanX] - tile_left) + row[kSlope] * y + side * (row[kHalfChord] * root + T(kSlack));
  };
  const W right = chord_end(1), left = chord_end(-1);
  const I below = {0, 4, 8, 12};
  W end = right < T(15.5) ? right : W{} + T(15.5), start = left > 0 ? left : W{};  // near the tile: the conversions stay defined
  end = end > 0 ? end : W{};
  start = start < 16 ? start : W{} + 16;
  const I last = __builtin_convertvector(end, I), floor_start = __builtin_convertvector(start, I);
  const I first = __builtin_convertvector(floor_start, W) < start ? floor_start + 1 : floor_start;
  const I bits = ((I{} + 2) << (last >> 2)) - ((I{} + 1) << (first >> 2));
  const I mask = (y0 <= y1) & (right >= 0) & (first <= last) & (bits << below);
  return int(mask[0] | mask[1] | mask[2] | mask[3]);
}
