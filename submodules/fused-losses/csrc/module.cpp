// Python bindings: pointers arrive as integers, the kernels run without the GIL.
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "arguments.h"
#include "isa_dispatch.h"
#include "kernels.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using namespace fused_losses;
// ---- instruction sets ---------------------------------------------------------------------------

using Isa = std::pair<std::string, const Kernels*>;

// What this binary holds and this processor runs, worst first.
std::vector<Isa> available_isas() {
  std::vector<Isa> isas = {{"baseline", &baseline::kernels}};
#ifdef HAS_AVX2
  if (runs_avx2()) isas.push_back({"avx2", &avx2::kernels});
#endif
#ifdef HAS_AVX512
  if (runs_avx512()) isas.push_back({"avx512", &avx512::kernels});
#endif
  return isas;
}

Isa active = available_isas().back();

void select_isa(const std::string& name) {
  std::string known;
  for (const Isa& isa : available_isas()) {
    if (isa.first == name) {
      active = isa;
      return;
    }
    known += (known.empty() ? "" : ", ") + isa.first;
  }
  throw std::invalid_argument("FUSED_LOSSES_ISA: '" + name + "' is not available here, choose one of " +
                              known + ".");
}

std::vector<std::string> isa_names() {
  std::vector<std::string> names;
  for (const Isa& isa : available_isas()) names.push_back(isa.first);
  return names;
}

// ---- kernels ------------------------------------------------------------------------------------

template <class S>
L1SsimProblem<S> l1_ssim_problem(Pointer image, Pointer target, bool target_is_uint8, Pointer dL_dimage,
                                 Pointer scratch, int64_t channels, int64_t height, int64_t width,
                                 double lambda_dssim, int threads) {
  return {pointer<const S>(image),
          pointer<const void>(target),
          target_is_uint8,
          pointer<S>(dL_dimage),
          pointer<char>(scratch),
          channels,
          height,
          width,
          lambda_dssim,
          threads};
}

// (mean L1, mean SSIM)
template <class... Arguments>
std::pair<double, double> l1_ssim(bool is_double, Arguments... arguments) {
  const L1Ssim means = is_double ? active.second->l1_ssim_double(l1_ssim_problem<double>(arguments...))
                                 : active.second->l1_ssim_float(l1_ssim_problem<float>(arguments...));
  return {means.l1, means.ssim};
}

template <class S>
CrossEntropyProblem<S> cross_entropy_problem(Pointer features, Pointer weight, Pointer bias, Pointer labels,
                                             int label_type, Pointer pixel_weights, Pointer dL_dfeatures,
                                             Pointer dL_dweight, Pointer dL_dbias, Pointer scratch,
                                             double scale, int64_t channels, int64_t classes, int64_t pixels,
                                             bool ignores, int64_t ignore_label, int threads) {
  return {pointer<const S>(features),
          pointer<const S>(weight),
          pointer<const S>(bias),
          pointer<const void>(labels),
          LabelType(label_type),
          pointer<const S>(pixel_weights),
          pointer<S>(dL_dfeatures),
          pointer<S>(dL_dweight),
          pointer<S>(dL_dbias),
          pointer<char>(scratch),
          scale,
          channels,
          classes,
          pixels,
          ignores,
          ignore_label,
          threads,
          chunk_count(pixels)};
}

// (loss, number of labels that are no class)
template <class... Arguments>
std::pair<double, int64_t> cross_entropy(bool is_double, Arguments... arguments) {
  const CrossEntropy result =
      is_double ? active.second->cross_entropy_double(cross_entropy_problem<double>(arguments...))
                : active.second->cross_entropy_float(cross_entropy_problem<float>(arguments...));
  return {result.loss, result.bad_labels};
}

int64_t tiles_scratch(int64_t channels, int64_t classes, int64_t pixels, int threads, int64_t scalar_bytes) {
  return cross_entropy_scratch(channels, classes, pixels, kTileGroups, threads, scalar_bytes).total;
}

// Its tensors outlive it.
template <class S>
class Tiles {
 public:
  Tiles(Pointer weight, Pointer bias, Pointer labels, int label_type, Pointer pixel_weights,
        Pointer dL_dweight, Pointer dL_dbias, Pointer scratch, int64_t channels, int64_t classes,
        int64_t width, int64_t height, bool ignores, int64_t ignore_label, int threads)
      : kernels_(active.second) {
    tiled_.problem = cross_entropy_problem<S>(0, weight, bias, labels, label_type, pixel_weights, 0,
                                              dL_dweight, dL_dbias, scratch, 1, channels, classes,
                                              width * height, ignores, ignore_label, threads);
    tiled_.problem.parts = kTileGroups;
    tiled_.width = width, tiled_.height = height;
    tiled_.epilogue = {nullptr, nullptr, int(channels), int(width), int(height), threads, int(sizeof(S))};
    if constexpr (sizeof(S) == sizeof(float))
      bad_labels_ = kernels_->begin_tiles_float(tiled_);
    else
      bad_labels_ = kernels_->begin_tiles_double(tiled_);
  }
  Tiles(const Tiles&) = delete;

  int64_t bad_labels() const { return bad_labels_; }
  Pointer address() const { return reinterpret_cast<Pointer>(&tiled_.epilogue); }
  double loss() const {
    if constexpr (sizeof(S) == sizeof(float))
      return kernels_->end_tiles_float(tiled_);
    else
      return kernels_->end_tiles_double(tiled_);
  }

 private:
  const Kernels* kernels_;
  TiledCrossEntropy<S> tiled_;
  int64_t bad_labels_;
};

template <class S>
void bind_tiles(nb::module_& m, const char* name) {
  nb::class_<Tiles<S>>(m, name)
      .def(nb::init<Pointer, Pointer, Pointer, int, Pointer, Pointer, Pointer, Pointer, int64_t, int64_t,
                    int64_t, int64_t, bool, int64_t, int>(),
           "weight"_a, "bias"_a, "labels"_a, "label_type"_a, "pixel_weights"_a, "dL_dweight"_a, "dL_dbias"_a,
           "scratch"_a, "channels"_a, "classes"_a, "width"_a, "height"_a, "ignores"_a, "ignore_label"_a,
           "threads"_a)
      .def_prop_ro("bad_labels", &Tiles<S>::bad_labels)
      .def_prop_ro("address", &Tiles<S>::address, "Of the TileEpilogue.")
      .def("loss", &Tiles<S>::loss, "After all tiles; fills the gradients.");
}

void adam(const std::vector<Pointer>& pointers, const std::vector<int64_t>& sizes,
          const std::vector<double>& settings, int threads) {
  const std::vector<AdamParameter> parameters = adam_parameters(pointers, sizes, settings);
  active.second->adam(parameters.data(), int64_t(parameters.size()), threads);
}

}  // namespace

NB_MODULE(_C, m) {
  using Release = nb::call_guard<nb::gil_scoped_release>;
  m.def("isa", [] { return active.first; }, "Name of the instruction set in use.");
  m.def("available_isas", isa_names, "Instruction sets that can be selected, worst first.");
  m.def("select_isa", select_isa, "name"_a);
  m.def("vector_bytes", [] { return active.second->vector_bytes; });
#ifdef _OPENMP
  m.attr("has_openmp") = true;
#else
  m.attr("has_openmp") = false;
#endif

  m.def("l1_ssim_scratch", l1_ssim_scratch, "channels"_a, "height"_a, "width"_a, "Bytes.");
  m.def("l1_ssim", l1_ssim<Pointer, Pointer, bool, Pointer, Pointer, int64_t, int64_t, int64_t, double, int>,
        "is_double"_a, "image"_a, "target"_a, "target_is_uint8"_a, "dL_dimage"_a, "scratch"_a, "channels"_a,
        "height"_a, "width"_a, "lambda_dssim"_a, "threads"_a, Release());

  m.def(
      "cross_entropy_scratch",
      [](int64_t channels, int64_t classes, int64_t pixels, int threads, int64_t scalar_bytes) {
        return cross_entropy_scratch(channels, classes, pixels, chunk_count(pixels), threads, scalar_bytes)
            .total;
      },
      "channels"_a, "classes"_a, "pixels"_a, "threads"_a, "scalar_bytes"_a, "Bytes.");
  m.def("cross_entropy",
        cross_entropy<Pointer, Pointer, Pointer, Pointer, int, Pointer, Pointer, Pointer, Pointer, Pointer,
                      double, int64_t, int64_t, int64_t, bool, int64_t, int>,
        "is_double"_a, "features"_a, "weight"_a, "bias"_a, "labels"_a, "label_type"_a, "pixel_weights"_a,
        "dL_dfeatures"_a, "dL_dweight"_a, "dL_dbias"_a, "scratch"_a, "scale"_a, "channels"_a, "classes"_a,
        "pixels"_a, "ignores"_a, "ignore_label"_a, "threads"_a, Release());

  m.def("tiles_scratch", tiles_scratch, "channels"_a, "classes"_a, "pixels"_a, "threads"_a, "scalar_bytes"_a,
        "Bytes.");
  bind_tiles<float>(m, "TilesFloat");
  bind_tiles<double>(m, "TilesDouble");

  m.def("adam", adam, "pointers"_a, "sizes"_a, "settings"_a, "threads"_a, Release());
}
