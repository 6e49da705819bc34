// An exact, balanced kd-tree over 3D points with bucket leaves.
//
// Layout: a complete binary tree, node i has the children 2i+1 and 2i+2 and halves its range of the reordered points, so
// neither ranges nor child pointers are stored; a node is its bounding box alone. Where points move, the boxes follow and
// the order stays: the search stays exact, it only visits more leaves as boxes begin to overlap.
#pragma once

#include <cstdint>
#include <vector>

#include "top_k.h"

namespace simple_knn {

struct Item {
  float position[3];
  uint32_t index;
};

class KdTree {
 public:
  // xyz: count x 3, row-major, finite.
  KdTree(const float* xyz, int64_t count, int threads);

  // Follows the points to new positions (count x 3), at a tenth of the cost of a new tree. False, and the tree is of no use
  // any more, where its leaves have grown so much that a new one searches faster.
  bool refit(const float* xyz, int threads);

  // Offers every point that can be among the k nearest of `query`, except the one of index `exclude`, to `best`;
  // values are squared distances.
  void search(const float* query, int64_t exclude, TopK& best) const;

  int64_t count() const { return count_; }
  uint32_t index(int64_t slot) const { return index_[slot]; }

 private:
  struct Box {
    float low[3], high[3];
  };

  void build(Item* items, int64_t node, int64_t begin, int64_t end);
  void refit_node(const float* xyz, int64_t node, int64_t begin, int64_t end);
  double leaf_size() const;
  float squared_distance(const Box& box, const float* query) const;
  void scan_leaf(int64_t begin, int64_t end, const float* query, int64_t exclude, TopK& best) const;

  int64_t count_, first_leaf_;
  double built_leaf_size_;
  std::vector<Box> boxes_;
  std::vector<float> x_, y_, z_;  // in tree order, one array per axis so that a leaf is scanned with vector loads
  std::vector<uint32_t> index_;
};

// (count,) mean squared distance to the three nearest other points (to fewer where there are fewer, 0 for one point).
void mean_squared_distance(const float* xyz, int64_t count, float* result, int threads);

// (num_queries, k) nearest points of every query, ascending; exclude may be null.
void nearest(const KdTree& tree, const float* queries, const int64_t* exclude, int64_t num_queries, int k,
             int64_t* indices, float* squared_distances, int threads);

}  // namespace simple_knn
