// (1 - lambda) L1 + lambda (1 - SSIM) and its gradient by the image.
//
// The Gaussian window is separable: rows are blurred along x into a ring of 11 rows, then along y as soon as
// the ring holds the rows around the current one. Outside the image everything is 0. The gradient blurs the
// three derivatives of SSIM per pixel in the same way (the window is symmetric, so the transpose of the blur
// is the blur). Tiles run both blurs one behind the other, 5 rows apart, and work out again what their
// neighbours know too: only the images, the target and the gradient touch memory.
#pragma once

#include <cmath>

#include "kernels.h"
#include "simd.h"

namespace fused_losses {
namespace {  // internal linkage: see GS_HD

// The window's weights by distance from its centre.
template <class S>
struct Window {
  S weight[kWindowRadius + 1];

  Window() {
    double sum = 0;
    for (int i = -kWindowRadius; i <= kWindowRadius; ++i) sum += unnormalised(i);
    for (int i = 0; i <= kWindowRadius; ++i) weight[i] = S(unnormalised(i) / sum);
  }
  static double unnormalised(int i) { return std::exp(-i * i / (2 * kWindowSigma * kWindowSigma)); }
};

// sum_k weight[|k|] row(k), k = -5 .. 5
template <class S, class Row>
GS_HD Vec<S> blur(const Window<S>& window, const Row& row) {
  Vec<S> sum = window.weight[0] * row(0);
#pragma GCC unroll 8
  for (int k = 1; k <= kWindowRadius; ++k) sum += window.weight[k] * (row(-k) + row(k));
  return sum;
}

constexpr int64_t kHalo = 2 * kWindowRadius;
// Columns of a tile whose derivatives of SSIM are needed, its own and 5 on either side, as whole vectors.
constexpr int64_t kDerivativeColumns = round_up(kTileWidth + kHalo, kAlign / sizeof(float));

// A value of the target: bytes stand for 1/255ths.
template <class S>
GS_HD S intensity(S value) {
  return value;
}
template <class S>
GS_HD S intensity(uint8_t value) {
  return S(value) / S(255);
}

// A row of a tile with its halos.
template <class S>
struct Line {
  static constexpr int64_t kColumns = kDerivativeColumns + kHalo;
  alignas(kAlign) S values[kColumns];

  // The columns from `first` on of an image row, 0 outside the image.
  template <class T>
  void read(const T* row, int64_t first, int64_t width) {
    for (int64_t x = clear_outside(first, width); x < inside_end(first, width); ++x)
      values[x] = intensity<S>(row[first + x]);
  }
  // Sets the columns outside the image to 0; returns the first one inside.
  int64_t clear_outside(int64_t first, int64_t width) {
    const int64_t begin = first < 0 ? -first : 0;
    for (int64_t x = 0; x < begin; ++x) values[x] = 0;
    for (int64_t x = inside_end(first, width); x < kColumns; ++x) values[x] = 0;
    return begin;
  }
  static int64_t inside_end(int64_t first, int64_t width) {
    return width - first < kColumns ? width - first : kColumns;
  }
};

// The last 11 rows of `Count` quantities, blurred along x.
template <class S, int Count, int64_t Columns>
struct Ring {
  alignas(kAlign) S rows[kWindowSize][Count][Columns];

  S* row(int64_t y) { return rows[(y + 2 * kWindowSize) % kWindowSize][0]; }  // (Count, Columns)

  void clear(int64_t y) {
    S* values = row(y);
    for (int64_t x = 0; x < Count * Columns; ++x) values[x] = 0;
  }
  // Output column x lies in the middle of the lines' columns x .. x + 10.
  void blur_along_x(int64_t y, const Line<S>* lines, int64_t columns, const Window<S>& window) {
    for (int q = 0; q < Count; ++q) {
      S* values = row(y) + q * Columns;
      const S* centre = lines[q].values + kWindowRadius;
      for (int64_t x = 0; x < columns; x += kLanes<S>)
        store(values + x, blur(window, [&](int k) { return load(centre + x + k); }));
    }
  }
};

// The rows y - 5 .. y + 5 of a ring; one pointer serves all quantities.
template <class S, int Count, int64_t Columns>
struct RowWindow {
  const S* rows[kWindowSize];

  RowWindow(Ring<S, Count, Columns>& ring, int64_t y) {
    for (int k = 0; k < kWindowSize; ++k) rows[k] = ring.row(y + k - kWindowRadius);
  }
  Vec<S> blur_along_y(const Window<S>& window, int quantity, int64_t x) const {
    return blur(window, [&](int k) { return load(rows[k + kWindowRadius] + quantity * Columns + x); });
  }
};

// Image and target are cut into equal tiles.
struct Tile {
  int64_t channel, y_begin, y_end, x_begin, columns;

  static int64_t count(int64_t channels, int64_t height, int64_t width) {
    return channels * l1_ssim_tiles(height, kTileHeight) * l1_ssim_tiles(width, kTileWidth);
  }
  Tile(int64_t index, int64_t height, int64_t width) {
    const int64_t tiles_x = l1_ssim_tiles(width, kTileWidth), tiles_y = l1_ssim_tiles(height, kTileHeight);
    const int64_t row = index / tiles_x % tiles_y, tile_height = (height + tiles_y - 1) / tiles_y;
    const int64_t tile_width = round_up((width + tiles_x - 1) / tiles_x, kAlign / int64_t(sizeof(float)));
    channel = index / (tiles_x * tiles_y);
    y_begin = row * tile_height;
    y_end = y_begin + tile_height < height ? y_begin + tile_height : height;
    x_begin = index % tiles_x * tile_width;
    columns = x_begin + tile_width < width ? tile_width : width - x_begin;
  }
};

// T: the target's type, S or uint8_t.
template <class S, class T>
class L1SsimKernel {
 public:
  explicit L1SsimKernel(const L1SsimProblem<S>& problem)
      : p(problem),
        target(static_cast<const T*>(p.target)),
        elements(double(p.channels * p.height * p.width)),
        with_ssim(p.lambda_dssim != 0) {}

  L1Ssim run() const {
    const int64_t tiles = Tile::count(p.channels, p.height, p.width);
    L1Ssim* sums = reinterpret_cast<L1Ssim*>(p.scratch);
#pragma omp parallel for num_threads(p.threads) schedule(dynamic)
    for (int64_t i = 0; i < tiles; ++i) sums[i] = run_tile(Tile(i, p.height, p.width));
    L1Ssim mean{0, 0};
    for (int64_t i = 0; i < tiles; ++i) mean = {mean.l1 + sums[i].l1, mean.ssim + sums[i].ssim};
    return {mean.l1 / elements, mean.ssim / elements};
  }

 private:
  using Products = Ring<S, 4, kDerivativeColumns>;  // x, y, x^2 + y^2, x y
  using Derivatives = Ring<S, 3, kTileWidth>;       // SsimTerms' d_mean, d_square, d_product

  const L1SsimProblem<S>& p;
  const T* const target;
  const double elements;
  const bool with_ssim;
  const Window<S> window;

  // The sums of L1 and SSIM over the tile, and its gradient.
  L1Ssim run_tile(const Tile& tile) const {
    Products products;
    Derivatives derivatives;
    L1Ssim sum{0, 0};
    if (!with_ssim) {
      for (int64_t y = tile.y_begin; y < tile.y_end; ++y) sum.l1 += finish_row(tile, y, derivatives);
      return sum;
    }
    const int64_t reach = p.dL_dimage ? kWindowRadius : 0;  // rows of derivatives beside the tile's own
    for (int64_t y = tile.y_begin - reach - kWindowRadius; y < tile.y_end + reach + kWindowRadius; ++y) {
      blur_products(tile, y, products);
      const int64_t middle = y - kWindowRadius, last = middle - reach;
      if (middle >= tile.y_begin - reach) sum.ssim += differentiate_row(tile, middle, products, derivatives);
      if (last >= tile.y_begin) sum.l1 += finish_row(tile, last, derivatives);
    }
    return sum;
  }

  void blur_products(const Tile& tile, int64_t y, Products& products) const {
    if (y < 0 || y >= p.height) return products.clear(y);
    Line<S> lines[4];
    const int64_t row = (tile.channel * p.height + y) * p.width, first = tile.x_begin - kHalo;
    lines[0].read(p.image + row, first, p.width);
    lines[1].read(target + row, first, p.width);
    for (int64_t x = 0; x < Line<S>::kColumns; ++x) {
      const S a = lines[0].values[x], b = lines[1].values[x];
      lines[2].values[x] = a * a + b * b;
      lines[3].values[x] = a * b;
    }
    products.blur_along_x(y, lines, tile.columns + kHalo, window);
  }

  // The derivatives of SSIM in row y, blurred along x; returns the row's sum of SSIM.
  double differentiate_row(const Tile& tile, int64_t y, Products& products, Derivatives& derivatives) const {
    if (y < 0 || y >= p.height) return derivatives.clear(y), 0;
    const RowWindow<S, 4, kDerivativeColumns> rows(products, y);
    Line<S> values, lines[3];
    for (int64_t x = 0; x < tile.columns + kHalo; x += kLanes<S>) {
      Vec<S> blurred[4];
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) blurred[q] = rows.blur_along_y(window, q, x);
      const SsimTerms<Vec<S>> terms = ssim_terms(blurred[0], blurred[1], blurred[2], blurred[3]);
      store(values.values + x, terms.value);
      store(lines[0].values + x, terms.d_mean);
      store(lines[1].values + x, terms.d_square);
      store(lines[2].values + x, terms.d_product);
    }
    if (p.dL_dimage) {
      for (auto& line : lines) line.clear_outside(tile.x_begin - kWindowRadius, p.width);
      derivatives.blur_along_x(y, lines, tile.columns, window);
    }
    if (y < tile.y_begin || y >= tile.y_end) return 0;  // a neighbour's
    Vec<S> sum{};
    for (int64_t x = 0; x < tile.columns; x += kLanes<S>)
      sum += first_lanes<S>(tile.columns - x) ? load(values.values + kWindowRadius + x) : Vec<S>{};
    return sum_lanes<S>(sum);
  }

  // The gradient of row y; returns the row's sum of L1.
  double finish_row(const Tile& tile, int64_t y, Derivatives& derivatives) const {
    const RowWindow<S, 3, kTileWidth> rows(derivatives, y);
    const int64_t start = (tile.channel * p.height + y) * p.width + tile.x_begin;
    const S dL_dl1 = S((1 - p.lambda_dssim) / elements), dL_dssim = S(-p.lambda_dssim / elements);
    Line<S> line;
    line.read(target + start, 0, tile.columns);
    Vec<S> sum{};
    for (int64_t x = 0; x < tile.columns; x += kLanes<S>) {
      const int64_t count = tile.columns - x;
      const Vec<S> image = load_first(p.image + start + x, count), wanted = load(line.values + x);
      const Vec<S> difference = image - wanted;
      sum += absolute(difference);
      if (!p.dL_dimage) continue;
      Vec<S> gradient = dL_dl1 * sign(difference);
      if (with_ssim) {
        Vec<S> blurred[3];
#pragma GCC unroll 4
        for (int q = 0; q < 3; ++q) blurred[q] = rows.blur_along_y(window, q, x);
        gradient += dL_dssim * ssim_gradient(image, wanted, blurred[0], blurred[1], blurred[2]);
      }
      store_first(p.dL_dimage + start + x, gradient, count);
    }
    return sum_lanes<S>(sum);
  }
};

}  // namespace
}  // namespace fused_losses
