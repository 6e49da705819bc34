// Raw pointers in, nothing out: the Python side checks the tensors and allocates the results.
#include <nanobind/nanobind.h>

#include "directional.h"
#include "kd_tree.h"

namespace nb = nanobind;

namespace {

template <typename T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

}  // namespace

NB_MODULE(_core, m) {
  using simple_knn::kMaxNeighbours;
  m.attr("MAX_NEIGHBOURS") = kMaxNeighbours;

  m.def(
      "mean_squared_distance",
      [](uintptr_t points, int64_t count, uintptr_t result, int threads) {
        simple_knn::mean_squared_distance(pointer<const float>(points), count, pointer<float>(result), threads);
      },
      nb::arg("points"), nb::arg("count"), nb::arg("result"), nb::arg("threads"),
      nb::call_guard<nb::gil_scoped_release>());

  using simple_knn::KdTree;
  using Release = nb::call_guard<nb::gil_scoped_release>;
  nb::class_<KdTree>(m, "KdTree")
      .def(
          "__init__",
          [](KdTree* tree, uintptr_t points, int64_t count, int threads) {
            new (tree) KdTree(pointer<const float>(points), count, threads);
          },
          nb::arg("points"), nb::arg("count"), nb::arg("threads"))
      .def_prop_ro("count", &KdTree::count)
      .def(
          "refit",
          [](KdTree& tree, uintptr_t points, int threads) { return tree.refit(pointer<const float>(points), threads); },
          nb::arg("points"), nb::arg("threads"), Release())
      .def(
          "nearest",
          [](const KdTree& tree, uintptr_t queries, uintptr_t exclude, int64_t num_queries, int k, uintptr_t indices,
             uintptr_t squared_distances, int threads) {
            simple_knn::nearest(tree, pointer<const float>(queries), pointer<const int64_t>(exclude), num_queries, k,
                                pointer<int64_t>(indices), pointer<float>(squared_distances), threads);
          },
          nb::arg("queries"), nb::arg("exclude"), nb::arg("num_queries"), nb::arg("k"), nb::arg("indices"),
          nb::arg("squared_distances"), nb::arg("threads"), Release());

  m.def(
      "directional_nearest",
      [](uintptr_t points, int64_t count, uintptr_t origins, uintptr_t directions, int64_t num_origins, int k,
         uintptr_t indices, uintptr_t projections, int threads) {
        simple_knn::directional_nearest(pointer<const float>(points), count, pointer<const int64_t>(origins),
                                        pointer<const float>(directions), num_origins, k, pointer<int64_t>(indices),
                                        pointer<float>(projections), threads);
      },
      nb::arg("points"), nb::arg("count"), nb::arg("origins"), nb::arg("directions"), nb::arg("num_origins"),
      nb::arg("k"), nb::arg("indices"), nb::arg("projections"), nb::arg("threads"),
      nb::call_guard<nb::gil_scoped_release>());
}
