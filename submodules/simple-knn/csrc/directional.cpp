#include "directional.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "top_k.h"

// The scan is the one loop here that wider vectors speed up; GCC compiles it three times and picks at load time.
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12 && defined(__x86_64__) && defined(__GLIBC__)
#define SIMPLE_KNN_MULTIVERSION __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define SIMPLE_KNN_MULTIVERSION
#endif

namespace simple_knn {
namespace {

constexpr int64_t kBlockSize = 128;  // points tested together; the candidates are touched only where one passes
constexpr int64_t kTileBlocks = 16;  // 24 KiB of coordinates: stays in the first-level cache for a group of origins
constexpr int64_t kGroupSize = 8;    // origins that share a tile

struct alignas(64) Block {  // one array per axis, for aligned vector loads
  float x[kBlockSize], y[kBlockSize], z[kBlockSize];
};

// The points in order of their index; the last block is padded with NaN, which lies ahead of nothing.
std::vector<Block> to_blocks(const float* xyz, int64_t count) {
  std::vector<Block> blocks((count + kBlockSize - 1) / kBlockSize);
  for (int64_t i = 0; i < static_cast<int64_t>(blocks.size()) * kBlockSize; ++i) {
    const float* point = xyz + 3 * i;
    const bool padding = i >= count;
    Block& block = blocks[i / kBlockSize];
    block.x[i % kBlockSize] = padding ? NAN : point[0];
    block.y[i % kBlockSize] = padding ? NAN : point[1];
    block.z[i % kBlockSize] = padding ? NAN : point[2];
  }
  return blocks;
}

// Offers the points of the blocks [begin, end) that lie ahead of `origin` to `best`.
SIMPLE_KNN_MULTIVERSION
void scan(const Block* blocks, int64_t begin, int64_t end, const float* origin, const float* direction, TopK& best) {
  const float px = origin[0], py = origin[1], pz = origin[2];
  const float ux = direction[0], uy = direction[1], uz = direction[2];
  alignas(64) float projections[kBlockSize];
  for (int64_t b = begin; b < end; ++b) {
    const Block& block = blocks[b];
    const float worst = best.worst();
    int any = 0;
    for (int64_t i = 0; i < kBlockSize; ++i) {
      const float d = (block.x[i] - px) * ux + (block.y[i] - py) * uy + (block.z[i] - pz) * uz;
      projections[i] = d > 0.0f ? d : NAN;  // one comparison below: half of all points are ahead, a branch mispredicts
      any |= (d > 0.0f) & (d <= worst);
    }
    if (!any) continue;
    for (int64_t i = 0; i < kBlockSize; ++i)
      if (projections[i] <= best.worst())
        best.insert(projections[i], static_cast<uint32_t>(b * kBlockSize + i));
  }
}

}  // namespace

void directional_nearest(const float* xyz, int64_t count, const int64_t* origins, const float* directions,
                         int64_t num_origins, int k, int64_t* indices, float* projections, int threads) {
  const std::vector<Block> blocks = to_blocks(xyz, count);
  const int64_t num_blocks = static_cast<int64_t>(blocks.size());
  const int64_t num_groups = (num_origins + kGroupSize - 1) / kGroupSize;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (int64_t group = 0; group < num_groups; ++group) {
    const int64_t first = group * kGroupSize, last = std::min(first + kGroupSize, num_origins);
    TopK best[kGroupSize];
    for (int64_t q = first; q < last; ++q) best[q - first].reset(k);
    for (int64_t begin = 0; begin < num_blocks; begin += kTileBlocks)
      for (int64_t q = first; q < last; ++q)
        scan(blocks.data(), begin, std::min(begin + kTileBlocks, num_blocks), xyz + 3 * origins[q], directions + 3 * q,
             best[q - first]);
    for (int64_t q = first; q < last; ++q) best[q - first].write(indices + q * k, projections + q * k);
  }
}

}  // namespace simple_knn
