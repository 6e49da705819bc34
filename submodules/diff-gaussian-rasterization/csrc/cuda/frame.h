// What one forward pass leaves for its backward pass, in memory that the caller owns: names and layouts of all working memory.
// A packed row (gs/ellipse.h) ends with the colour; encodings are read where the caller has them.
#pragma once

#include <stdint.h>

#include "gs/ellipse.h"
#include "gs/tensors.h"
#include "sort.h"

namespace gs {
namespace cuda {

constexpr int kTileHead = 8;  // entries of a packed row, kMeanX to kOpacity and two more, that blending needs backward

// The gradient row of one tile instance: sums over pixels of q = dL_dpower times 1, d, d d^T with d = mean - pixel; then of
// weight * gradient for every channel.
constexpr int kQ = 0, kQx = 1, kQy = 2, kQxx = 3, kQxy = 4, kQyy = 5, kMoments = 6, kChannelSums = 8;
constexpr int kMaxRow = 80;  // gradient_row(64)
GS_HD constexpr int gradient_row(int num_identity) { return (kChannelSums + kIdentityChannels + num_identity + 7) / 8 * 8; }

/// Read by the host once a step.
struct Counts {
  int64_t visible, instances;
  unsigned long long invalid;  // bits of Invalid and InvalidCamera
  int64_t sorted;              // instances again, as the sort counts them
};

/// Bits of the camera's tensor that held NaN or Inf; those of the other inputs are in gs/call.h.
enum InvalidCamera : int { kView = 32, kProjection = 64, kPosition = 128, kBackground = 256 };

/// Cuts memory into arrays. From address 0 it measures.
class Carver {
 public:
  explicit Carver(uintptr_t begin) : begin_(begin), at_(begin) {}
  template <class U>
  U* take(int64_t count) {
    U* result = reinterpret_cast<U*>(at_);
    at_ += (uintptr_t(count) * sizeof(U) + 255) / 256 * 256;
    return result;
  }
  int64_t bytes() const { return int64_t(at_ - begin_); }

 private:
  uintptr_t begin_, at_;
};

struct Grid {
  int tiles_x, tiles_y;
  explicit Grid(const Inputs& in) : tiles_x((in.width + kTile - 1) / kTile), tiles_y((in.height + kTile - 1) / kTile) {}
  GS_HD int tiles() const { return tiles_x * tiles_y; }
};

constexpr int kSegment = 256;  // Gaussians, in order of depth, whose tiles are counted together

/// Memory by number of Gaussians, and of tiles.
template <class T>
struct GaussianMemory {
  Counts* counts;
  T* packed;             // (N, kPackedRow)
  int32_t* tile_count;   // (N)
  uint32_t* first_row;   // (N) its first gradient row; those of one Gaussian are neighbours
  int64_t* segment_row;  // first row of each segment
  SortBuffers<uint32_t> by_depth;
  int64_t bytes;

  GaussianMemory(const Inputs& in, uintptr_t memory) {
    const int64_t n = in.num_gaussians;
    Carver carver(memory);
    counts = carver.take<Counts>(1);
    packed = carver.take<T>(n * kPackedRow);
    tile_count = carver.take<int32_t>(n);
    first_row = carver.take<uint32_t>(n);
    segment_row = carver.take<int64_t>(divide_up(n, kSegment));
    for (auto& keys : by_depth.keys) keys = carver.take<uint32_t>(n);
    for (auto& values : by_depth.values) values = carver.take<uint32_t>(n);
    by_depth.histogram = carver.take<uint32_t>(sort_histogram_size(n));
    bytes = carver.bytes();
  }
  uint32_t* order() const { return by_depth.values[0]; }  // visible Gaussians, nearest first
};

/// Memory by number of instances, and of tiles. Instances lie by tile, then by depth.
template <class Key>
struct InstanceMemory {
  uint32_t* tile_begin;  // tiles + 1
  uint32_t* tile_order;  // the longest lists first
  uint32_t* words_done;  // per tile: how far the forward pass came before all pixels were finished
  Instance* instances;
  uint32_t* gaussian_of_row;
  uint32_t* hits;  // bit i of word(32 instances of a tile, warp): the warp's pixels were reached by instance i
  SortBuffers<Key> by_tile;
  int64_t bytes;

  InstanceMemory(const Inputs& in, int64_t n, uintptr_t memory) {
    const int64_t tiles = Grid(in).tiles();
    Carver carver(memory);
    tile_begin = carver.take<uint32_t>(tiles + 1);
    tile_order = carver.take<uint32_t>(tiles);
    words_done = carver.take<uint32_t>(tiles);
    instances = carver.take<Instance>(n);
    gaussian_of_row = carver.take<uint32_t>(n);
    hits = carver.take<uint32_t>((n / 32 + tiles) * 8);
    for (auto& keys : by_tile.keys) keys = carver.take<Key>(n);
    for (auto& values : by_tile.values) values = carver.take<uint32_t>(n);
    by_tile.histogram = carver.take<uint32_t>(sort_histogram_size(n));
    bytes = carver.bytes();
  }
};

/// Memory of the backward pass.
template <class T>
struct GradientMemory {
  T* rows;           // (instances, stride)
  uint8_t* touched;  // whether the row was written
  int stride;        // gradient_row
  int64_t bytes;

  GradientMemory(const Inputs& in, int64_t n, uintptr_t memory) : stride(gradient_row(in.num_identity)) {
    Carver carver(memory);
    rows = carver.take<T>(n * stride);
    touched = carver.take<uint8_t>(n);
    bytes = carver.bytes();
  }
  __device__ T* row(int64_t i) const { return rows + i * stride; }
};

}  // namespace cuda
}  // namespace gs
