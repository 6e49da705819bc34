// The k best candidates of one query, kept sorted.
//
// A candidate is one 64-bit key: the bits of its value (a float >= 0, whose bits order as an unsigned integer) above its
// index. One integer comparison therefore orders by value and breaks ties by index, which makes every search
// independent of the order in which it meets the points.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace simple_knn {

constexpr int kMaxNeighbours = 512;  // the keys then take 4 KiB of stack and a sorted insertion stays cheap

class TopK {
 public:
  void reset(int k) {
    k_ = k;
    std::fill(keys_, keys_ + k, kEmpty);
  }

  // A larger value cannot enter; an equal one can, with a smaller index.
  float worst() const { return value_of(keys_[k_ - 1]); }

  void insert(float value, uint32_t index) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const uint64_t key = (uint64_t{bits} << 32) | index;
    if (key >= keys_[k_ - 1]) return;
    int slot = k_ - 1;
    for (; slot > 0 && keys_[slot - 1] > key; --slot) keys_[slot] = keys_[slot - 1];
    keys_[slot] = key;
  }

  // Writes k indices (-1 where there is none) and k values (infinity there), ascending.
  void write(int64_t* indices, float* values) const {
    for (int i = 0; i < k_; ++i) {
      const uint32_t index = static_cast<uint32_t>(keys_[i]);
      indices[i] = index == kNoIndex ? -1 : int64_t{index};
      values[i] = value_of(keys_[i]);
    }
  }

  float value(int i) const { return value_of(keys_[i]); }

 private:
  static constexpr uint32_t kNoIndex = 0xFFFFFFFFu;
  static constexpr uint64_t kEmpty = (uint64_t{0x7F800000u} << 32) | kNoIndex;  // infinity, behind every candidate

  static float value_of(uint64_t key) {
    const uint32_t bits = static_cast<uint32_t>(key >> 32);
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }

  int k_ = 0;
  uint64_t keys_[kMaxNeighbours];
};

}  // namespace simple_knn
