// Device pointers and the stream arrive as integers: the Python side checks the tensors and allocates
// everything.
#include <nanobind/nanobind.h>

#include "search.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}
cudaStream_t stream_of(uintptr_t handle) { return reinterpret_cast<cudaStream_t>(handle); }

}  // namespace

NB_MODULE(_cuda, m) {
  m.def("tree_bytes", simple_knn::tree_bytes, "count"_a);
  m.def("directional_bytes", simple_knn::directional_bytes, "count"_a, "num_origins"_a, "k"_a);

  m.def(
      "morton_codes",
      [](uintptr_t points, int64_t count, uintptr_t bounds, uintptr_t codes, uintptr_t stream) {
        simple_knn::morton_codes(pointer<const float>(points), count, pointer<const float>(bounds),
                                 pointer<int64_t>(codes), stream_of(stream));
      },
      "points"_a, "count"_a, "bounds"_a, "codes"_a, "stream"_a);

  m.def(
      "build_tree",
      [](uintptr_t points, int64_t count, uintptr_t order, uintptr_t tree, uintptr_t stream) {
        simple_knn::build_tree(pointer<const float>(points), count, pointer<const int64_t>(order),
                               pointer<void>(tree), stream_of(stream));
      },
      "points"_a, "count"_a, "order"_a, "tree"_a, "stream"_a);

  m.def(
      "mean_squared_distance",
      [](uintptr_t tree, int64_t count, uintptr_t result, uintptr_t stream) {
        simple_knn::mean_squared_distance(pointer<const void>(tree), count, pointer<float>(result),
                                          stream_of(stream));
      },
      "tree"_a, "count"_a, "result"_a, "stream"_a);

  m.def(
      "nearest",
      [](uintptr_t tree, int64_t count, uintptr_t queries, uintptr_t exclude, int64_t num_queries, int k,
         uintptr_t indices, uintptr_t squared_distances, uintptr_t stream) {
        simple_knn::nearest(pointer<const void>(tree), count, pointer<const float>(queries),
                            pointer<const int64_t>(exclude), num_queries, k, pointer<int64_t>(indices),
                            pointer<float>(squared_distances), stream_of(stream));
      },
      "tree"_a, "count"_a, "queries"_a, "exclude"_a, "num_queries"_a, "k"_a, "indices"_a,
      "squared_distances"_a, "stream"_a);

  m.def(
      "directional_nearest",
      [](uintptr_t points, int64_t count, uintptr_t origins, uintptr_t directions, int64_t num_origins, int k,
         uintptr_t workspace, uintptr_t indices, uintptr_t projections, uintptr_t stream) {
        simple_knn::directional_nearest(pointer<const float>(points), count, pointer<const int64_t>(origins),
                                        pointer<const float>(directions), num_origins, k,
                                        pointer<void>(workspace), pointer<int64_t>(indices),
                                        pointer<float>(projections), stream_of(stream));
      },
      "points"_a, "count"_a, "origins"_a, "directions"_a, "num_origins"_a, "k"_a, "workspace"_a, "indices"_a,
      "projections"_a, "stream"_a);
}
