// What the tiles of a rasterizer hand on while they are in the cache: a function that reads the channels of a
// finished tile and leaves their gradients. Packages that call such functions or offer them hold this file (a
// test compares) and include nothing else of each other.
#pragma once

#include <stdint.h>

/// A finished tile of 16x16 pixels: 16 blocks of 4x4, row by row, as are the pixels of a block.
struct FinishedTile {
  /// Channel c of pixel p in block b is values[b * block_stride + 16 * c + p].
  const void* values;
  int64_t block_stride;
  /// [16 blocks][channels][16 pixels], to be filled: by the values, 0 outside the image.
  void* gradients;
  /// Its first pixel.
  int left, top;
  /// Tiles of a group follow each other in one thread, in the same order for any number of threads.
  int group;
  bool first, last;
  int thread;
};

struct TileEpilogue {
  void (*run)(void* state, const FinishedTile&);
  void* state;
  /// What it is for: the size of the image, threads 0 to `threads` - 1, float or double.
  int channels, width, height, threads, scalar_bytes;
};

/// Sums over tiles are kept once a group, of which there are few, and added in the groups' order.
constexpr int kTileGroups = 128;
static inline constexpr int64_t tiles_in_group(int64_t tiles) {
  return tiles > 4 * kTileGroups ? (tiles + kTileGroups - 1) / kTileGroups : 4;
}
