// (1 - lambda) L1 + lambda (1 - SSIM) and its gradient by the image.
//
// The Gaussian window is separable: in tiles of kTileHeight x kTileWidth, rows are blurred along x into a
// ring of 11 rows, then along y as soon as the ring holds the rows around the current one. Outside the image
// everything is 0. The forward pass stores the three derivatives of SSIM per pixel, the backward pass blurs
// those (the window is symmetric, so the transpose of the blur is the blur).
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

// A row of a tile with the halo of the blur, 0 outside the image; data(0) is the tile's first column.
template <class S>
struct Line {
  alignas(kAlign) S values[kWindowRadius + kTileWidth + kWindowRadius];

  S* data(int64_t column) { return values + kWindowRadius + column; }

  // `row` is a row of the image, the tile starts at column `first`.
  void read(const S* row, int64_t first, int64_t width) {
    const int64_t begin = first - kWindowRadius, end = first + kTileWidth + kWindowRadius;
    const int64_t inside_begin = begin < 0 ? 0 : begin, inside_end = end < width ? end : width;
    for (int64_t x = begin; x < inside_begin; ++x) values[x - begin] = 0;
    for (int64_t x = inside_begin; x < inside_end; ++x) values[x - begin] = row[x];
    for (int64_t x = inside_end; x < end; ++x) values[x - begin] = 0;
  }
};

// The last 11 rows of `Count` quantities, blurred along x.
template <class S, int Count>
struct Ring {
  alignas(kAlign) S rows[kWindowSize][Count][kTileWidth];

  // (Count, kTileWidth)
  S* row(int64_t y) { return rows[(y + kWindowSize) % kWindowSize][0]; }
};

// The rows y - 5 .. y + 5 of a ring; one pointer serves all quantities.
template <class S>
struct RowWindow {
  const S* rows[kWindowSize];

  template <int Count>
  RowWindow(Ring<S, Count>& ring, int64_t y) {
    for (int k = 0; k < kWindowSize; ++k) rows[k] = ring.row(y + k - kWindowRadius);
  }
  Vec<S> blur_along_y(const Window<S>& window, int quantity, int64_t x) const {
    return blur(window, [&](int k) { return load(rows[k + kWindowRadius] + quantity * kTileWidth + x); });
  }
};

struct Tile {
  int64_t channel, y_begin, y_end, x_begin, x_end;

  static int64_t count(int64_t channels, int64_t height, int64_t width) {
    return channels * rows(height) * columns(width);
  }
  static int64_t columns(int64_t width) { return (width + kTileWidth - 1) / kTileWidth; }
  static int64_t rows(int64_t height) { return (height + kTileHeight - 1) / kTileHeight; }

  Tile(int64_t index, int64_t height, int64_t width) {
    const int64_t column = index % columns(width), row = index / columns(width) % rows(height);
    channel = index / (columns(width) * rows(height));
    y_begin = row * kTileHeight;
    y_end = y_begin + kTileHeight < height ? y_begin + kTileHeight : height;
    x_begin = column * kTileWidth;
    x_end = x_begin + kTileWidth < width ? x_begin + kTileWidth : width;
  }
};

template <class S>
class L1SsimKernel {
 public:
  explicit L1SsimKernel(const L1SsimProblem<S>& problem)
      : p(problem),
        elements(double(p.channels * p.height * p.width)),
        stride(round_up(p.width * int64_t(sizeof(S)), kAlign) / int64_t(sizeof(S))),
        l1_sums(reinterpret_cast<double*>(p.scratch)),
        ssim_sums(l1_sums + p.channels * p.height) {
    const int64_t sums = p.channels * p.height * (1 + Tile::columns(p.width)) * int64_t(sizeof(double));
    derivatives = reinterpret_cast<S*>(p.scratch + round_up(sums, kAlign));
  }

  // Two barriers in all: each costs a time slice where other programs hold a core.
  L1Ssim run() {
    const bool with_ssim = p.lambda_dssim != 0;
    const int64_t rows = p.channels * p.height;
    const int64_t tiles = with_ssim ? Tile::count(p.channels, p.height, p.width) : 0;
#pragma omp parallel num_threads(p.threads)
    {
#pragma omp for schedule(static) nowait
      for (int64_t row = 0; row < rows; ++row) l1_row(row);
#pragma omp for schedule(dynamic)
      for (int64_t i = 0; i < tiles; ++i) ssim_forward(Tile(i, p.height, p.width));
      if (p.dL_dimage) {
#pragma omp for schedule(dynamic) nowait
        for (int64_t i = 0; i < tiles; ++i) ssim_backward(Tile(i, p.height, p.width));
      }
    }
    L1Ssim mean{0, 0};
    for (int64_t i = 0; i < rows; ++i) mean.l1 += l1_sums[i];
    for (int64_t i = 0; with_ssim && i < rows * Tile::columns(p.width); ++i) mean.ssim += ssim_sums[i];
    return {mean.l1 / elements, mean.ssim / elements};
  }

 private:
  const L1SsimProblem<S>& p;
  const double elements;
  const int64_t stride;     // of the rows of `derivatives`
  double* const l1_sums;    // (channels, height)
  double* const ssim_sums;  // (channels, height, tiles along x)
  S* derivatives;           // (3, channels, height, stride): SsimTerms' d_mean, d_square, d_product
  const Window<S> window;

  S* derivative_row(int quantity, int64_t channel, int64_t y) const {
    return derivatives + ((quantity * p.channels + channel) * p.height + y) * stride;
  }

  // One row of L1: its sum, and its part of the gradient.
  void l1_row(int64_t row) const {
    const S* image = p.image + row * p.width;
    const S* target = p.target + row * p.width;
    const S scale = S((1 - p.lambda_dssim) / elements);
    Vec<S> sum{};
    for (int64_t x = 0; x < p.width; x += kLanes<S>) {
      const Vec<S> difference = load_first(image + x, p.width - x) - load_first(target + x, p.width - x);
      sum += absolute(difference);
      if (p.dL_dimage) store_first(p.dL_dimage + row * p.width + x, scale * sign(difference), p.width - x);
    }
    l1_sums[row] = sum_lanes<S>(sum);
  }

  // Blurs x, y, x^2 + y^2 and x y of image row y along x into the ring.
  void blur_products(const Tile& tile, int64_t y, Ring<S, 4>& ring) const {
    if (y < 0 || y >= p.height) return clear(ring, y);
    Line<S> lines[4];
    const int64_t row = (tile.channel * p.height + y) * p.width;
    lines[0].read(p.image + row, tile.x_begin, p.width);
    lines[1].read(p.target + row, tile.x_begin, p.width);
    for (int64_t x = 0; x < kTileWidth + 2 * kWindowRadius; ++x) {
      const S a = lines[0].values[x], b = lines[1].values[x];
      lines[2].values[x] = a * a + b * b;
      lines[3].values[x] = a * b;
    }
    blur_along_x(tile, y, lines, ring);
  }

  // Blurs the three derivatives of SSIM of row y along x into the ring.
  void blur_derivatives(const Tile& tile, int64_t y, Ring<S, 3>& ring) const {
    if (y < 0 || y >= p.height) return clear(ring, y);
    Line<S> lines[3];
    for (int q = 0; q < 3; ++q) lines[q].read(derivative_row(q, tile.channel, y), tile.x_begin, p.width);
    blur_along_x(tile, y, lines, ring);
  }

  template <int Count>
  void blur_along_x(const Tile& tile, int64_t y, Line<S> (&lines)[Count], Ring<S, Count>& ring) const {
    for (int q = 0; q < Count; ++q) {
      S* row = ring.row(y) + q * kTileWidth;
      for (int64_t x = 0; x < tile.x_end - tile.x_begin; x += kLanes<S>)
        store(row + x, blur(window, [&](int k) { return load(lines[q].data(x + k)); }));
    }
  }

  template <int Count>
  static void clear(Ring<S, Count>& ring, int64_t y) {
    S* row = ring.row(y);
    for (int64_t x = 0; x < Count * kTileWidth; ++x) row[x] = 0;
  }

  void ssim_forward(const Tile& tile) const {
    Ring<S, 4> ring;
    for (int64_t y = tile.y_begin - kWindowRadius; y < tile.y_end + kWindowRadius; ++y) {
      blur_products(tile, y, ring);
      if (y >= tile.y_begin + kWindowRadius) ssim_forward_row(tile, y - kWindowRadius, ring);
    }
  }

  void ssim_forward_row(const Tile& tile, int64_t y, Ring<S, 4>& ring) const {
    const RowWindow<S> rows(ring, y);
    const int64_t columns = tile.x_end - tile.x_begin;
    Vec<S> sum{};
    for (int64_t x = 0; x < columns; x += kLanes<S>) {
      Vec<S> blurred[4];
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) blurred[q] = rows.blur_along_y(window, q, x);
      const SsimTerms<Vec<S>> terms = ssim_terms(blurred[0], blurred[1], blurred[2], blurred[3]);
      sum += first_lanes<S>(columns - x) ? terms.value : Vec<S>{};
      if (p.dL_dimage) {
        store(derivative_row(0, tile.channel, y) + tile.x_begin + x, terms.d_mean);
        store(derivative_row(1, tile.channel, y) + tile.x_begin + x, terms.d_square);
        store(derivative_row(2, tile.channel, y) + tile.x_begin + x, terms.d_product);
      }
    }
    const int64_t row = tile.channel * p.height + y;
    ssim_sums[row * Tile::columns(p.width) + tile.x_begin / kTileWidth] = sum_lanes<S>(sum);
  }

  void ssim_backward(const Tile& tile) const {
    Ring<S, 3> ring;
    for (int64_t y = tile.y_begin - kWindowRadius; y < tile.y_end + kWindowRadius; ++y) {
      blur_derivatives(tile, y, ring);
      if (y >= tile.y_begin + kWindowRadius) ssim_backward_row(tile, y - kWindowRadius, ring);
    }
  }

  void ssim_backward_row(const Tile& tile, int64_t y, Ring<S, 3>& ring) const {
    const RowWindow<S> rows(ring, y);
    const int64_t start = (tile.channel * p.height + y) * p.width + tile.x_begin;
    const int64_t columns = tile.x_end - tile.x_begin;
    const S dL_dssim = S(-p.lambda_dssim / elements);
    for (int64_t x = 0; x < columns; x += kLanes<S>) {
      Vec<S> blurred[3];
#pragma GCC unroll 4
      for (int q = 0; q < 3; ++q) blurred[q] = rows.blur_along_y(window, q, x);
      const Vec<S> image = load_first(p.image + start + x, columns - x);
      const Vec<S> target = load_first(p.target + start + x, columns - x);
      const Vec<S> dssim = ssim_gradient(image, target, blurred[0], blurred[1], blurred[2]);
      S* dL_dimage = p.dL_dimage + start + x;
      store_first(dL_dimage, load_first(dL_dimage, columns - x) + dL_dssim * dssim, columns - x);
    }
  }
};

}  // namespace
}  // namespace fused_losses
