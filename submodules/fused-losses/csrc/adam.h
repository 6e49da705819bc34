// One Adam step over a list of parameters.
#pragma once

#include "adam_constants.h"
#include "kernels.h"
#include "simd.h"

namespace fused_losses {
namespace {  // internal linkage: see GS_HD

constexpr int64_t kAdamChunk =
    16384;  // elements: long enough to hide the scheduling, short enough to balance

static void adam_range(const AdamParameter& p, const AdamConstants<float>& k, int64_t begin, int64_t end) {
  float* __restrict parameter = p.parameter + begin;
  const float* __restrict gradient = p.gradient + begin;
  float* __restrict exp_avg = p.exp_avg + begin;
  float* __restrict exp_avg_sq = p.exp_avg_sq + begin;
  for (int64_t i = 0; i < end - begin; ++i) {
    float first = exp_avg[i], second = exp_avg_sq[i];
    adam_moments(gradient[i], first, second, k);
    exp_avg[i] = first;
    exp_avg_sq[i] = second;
    parameter[i] += adam_change(first, __builtin_sqrtf(second), k);
  }
}

// Runs of visible rows, each as one range.
static void adam_visible_rows(const AdamParameter& p, const AdamConstants<float>& k, int64_t begin,
                              int64_t end) {
  for (int64_t row = begin; row < end;) {
    int64_t stop = row;
    while (stop < end && p.visible[stop]) ++stop;
    if (stop > row) adam_range(p, k, row * p.row_size, stop * p.row_size);
    row = stop + 1;
  }
}

static void adam(const AdamParameter* parameters, int64_t count, [[maybe_unused]] int threads) {
#pragma omp parallel num_threads(threads)
  for (int64_t i = 0; i < count; ++i) {
    const AdamParameter& p = parameters[i];
    const AdamConstants<float> k = adam_constants(p);
    const int64_t rows = p.visible ? p.rows : p.rows * p.row_size;
    const int64_t step = p.visible ? (kAdamChunk + p.row_size - 1) / p.row_size : kAdamChunk;
#pragma omp for schedule(static) nowait
    for (int64_t begin = 0; begin < rows; begin += step) {
      const int64_t end = begin + step < rows ? begin + step : rows;
      if (p.visible)
        adam_visible_rows(p, k, begin, end);
      else
        adam_range(p, k, begin, end);
    }
  }
}

}  // namespace
}  // namespace fused_losses
