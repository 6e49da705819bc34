// The packed row of a visible Gaussian, and the gradient row of one of its tile instances, which shares its channel layout.

constexpr int kMeanX = 0, kMeanY = 1;                  // pixels
constexpr int kPowerA = 2, kPowerB = 3, kPowerC = 4;   // -a/2, -b, -c/2 of the conic
constexpr int kOpacity = 5, kDepth = 6, kCovXX = 7;    // kCovXX: of the 2D covariance, px^2
constexpr int kFeatures = 8;                           // r g b, then the identity channels

// In a gradient row the first six entries are sums over pixels of q = dL_dpower times 1, x, y, x^2, xy, y^2, with (x, y) first
// relative to the tile's centre and, once the row is finished, mean - pixel.
constexpr int kQ = 0, kQx = 1, kQy = 2, kQxx = 3, kQxy = 4, kQyy = 5, kGradDepth = 6;

constexpr int kMaxIdentity = 64;
constexpr int kMaxStride = 80;  // row_stride(kMaxIdentity)

GS_HD constexpr int row_stride(int num_identity) { return (kFeatures + 3 + num_identity + 15) / 16 * 16; }

/// Where the ellipse alpha >= 1/255 of a packed Gaussian lies, relative to its mean.
template <class T>
struct Ellipse {
  T a, b, level, extent_x, extent_y, y_at_right;
  bool empty;
};

template <class T>
GS_HD Ellipse<T> visible_ellipse(const T* row) {
  Ellipse<T> e;
  e.a = -2 * row[kPowerA], e.b = -row[kPowerB];
  // a x^2 + 2 b x y + c y^2 <= 2 ln(255 opacity); the margin keeps rounding from cutting a pixel that the alpha test keeps
  e.level = 2 * log(row[kOpacity] * T(255)) + T(1e-3);
  e.empty = !(e.level > 0);
  if (e.empty) return e;
  const T c = -2 * row[kPowerC];
  e.extent_x = sqrt(e.level * row[kCovXX]);
  e.extent_y = sqrt(e.level * row[kCovXX] * e.a / c);  // cov_yy / cov_xx = a / c, without the cancellation in a c - b^2
  e.y_at_right = -e.b / c * e.extent_x;
  return e;
}

/// The x-interval [lo, hi] that the ellipse covers for y in [y0, y1]; false where it covers nothing.
template <class T>
GS_HD bool ellipse_span(const Ellipse<T>& e, T y0, T y1, T& lo, T& hi) {
  y0 = y0 > -e.extent_y ? y0 : -e.extent_y;
  y1 = y1 < e.extent_y ? y1 : e.extent_y;
  if (!(y0 <= y1)) return false;
  auto half_chord = [&](T y) {  // of the chord at height y, whose midpoint is -b y / a
    const T rest = 1 - (y / e.extent_y) * (y / e.extent_y);
    return sqrt(e.level / e.a * (rest > 0 ? rest : T(0)));
  };
  auto clamp = [&](T y) { return y < y0 ? y0 : y > y1 ? y1 : y; };
  const T y_right = clamp(e.y_at_right), y_left = clamp(-e.y_at_right);
  hi = y_right == e.y_at_right ? e.extent_x : -e.b / e.a * y_right + half_chord(y_right);
  lo = y_left == -e.y_at_right ? -e.extent_x : -e.b / e.a * y_left - half_chord(y_left);
  return true;
}

/// The same for a band of `size` pixel rows from `top`, in whole cells of `size` pixels: cells [first, last].
template <class T>
GS_HD bool cell_span(const Ellipse<T>& e, const T* row, int top, int size, int& first, int& last) {
  const T slack = T(1e-2);  // pixels; rounding of the mean and of the extents is far below it
  T lo, hi;
  const T y = top - row[kMeanY];
  if (!ellipse_span(e, y - slack, y + (size - 1) + slack, lo, hi)) return false;
  const T left = ceil(row[kMeanX] + lo - slack), right = floor(row[kMeanX] + hi + slack);
  if (!(left <= right)) return false;
  const T bound = T(1 << 24);  // keeps the conversion defined for splats far outside
  first = int(floor((left < -bound ? -bound : left) / size));
  last = int(floor((right > bound ? bound : right) / size));
  return true;
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
  const Ellipse<T> e = visible_ellipse(row);
  if (e.empty) return;
  for (int ty = box.y0; ty < box.y1; ++ty) {
    int first, last;
    if (!cell_span(e, row, ty * kTile, kTile, first, last)) continue;
    const int begin = first > box.x0 ? first : box.x0, end = last + 1 < box.x1 ? last + 1 : box.x1;
    if (begin < end) visit(begin, end, ty);
  }
}

/// Bit 4 * j + i is set where the ellipse may reach block (i, j) of 4x4 pixels in the tile.
template <class T>
GS_HD int block_mask(const T* row, int tile_left, int tile_top) {
  const Ellipse<T> e = visible_ellipse(row);
  if (e.empty) return 0;
  int mask = 0;
  for (int j = 0; j < 4; ++j) {
    int first, last;
    if (!cell_span(e, row, tile_top + 4 * j, 4, first, last)) continue;
    first -= tile_left / 4, last -= tile_left / 4;
    first = first < 0 ? 0 : first, last = last > 3 ? 3 : last;
    if (first <= last) mask |= ((2 << last) - (1 << first)) << (4 * j);
  }
  return mask;
}
