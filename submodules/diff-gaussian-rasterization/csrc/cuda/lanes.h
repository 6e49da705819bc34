// Scalars as one-lane vectors for the shared mathematics (gs/lanes.h): one pixel or one Gaussian a thread.
#pragma once

#include <math.h>

#include "gs/config.h"

namespace gs {

template <class T>
GS_HD T lane_min(T a, T b) {
  return a < b ? a : b;
}
template <class T>
GS_HD T lane_max(T a, T b) {
  return a > b ? a : b;
}
template <class T>
GS_HD T lane_sqrt(T a) {
  return sqrt(a);
}
template <class T>
GS_HD T lane_log(T a) {
  return log(a);
}
template <class T>
GS_HD bool lane_less(T a, T b) {
  return a < b;
}
template <class T>
GS_HD T lane_select(bool m, T a, T b) {
  return m ? a : b;
}
GS_HD bool lane_any(bool m) { return m; }
GS_HD bool lane_and(bool a, bool b) { return a && b; }
GS_HD bool lane_and_not(bool a, bool b) { return a && !b; }
GS_HD double lane_divide(double a, double b) { return a / b; }
GS_HD float lane_divide(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fdividef(a, b);  // 2 ulp
#else
  return a / b;
#endif
}

}  // namespace gs
