// The Python module: structs of pointers and sizes, the choice of the instruction set, and the two calls. It is compiled for the
// baseline processor and never links to torch.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <vector>

#include "cpu/frame.h"
#include "gs/tensors.h"
#include "isa_dispatch.h"
#include "tile_epilogue.h"

namespace nb = nanobind;

namespace gs {
namespace baseline {
extern const Core core;
}
#ifdef HAS_AVX2
namespace avx2 {
extern const Core core;
}
#endif
#ifdef HAS_AVX512
namespace avx512 {
extern const Core core;
}
#endif

namespace {

/// Instruction sets of this build that this processor can run, best first.
std::vector<const Core*> available_cores() {
  std::vector<const Core*> cores;
#ifdef HAS_AVX512
  if (runs_avx512()) cores.push_back(&avx512::core);
#endif
#ifdef HAS_AVX2
  if (runs_avx2()) cores.push_back(&avx2::core);
#endif
  cores.push_back(&baseline::core);
  return cores;
}

const Core& core_named(const std::string& name) {
  for (const Core* core : available_cores())
    if (name == core->name) return *core;
  throw nb::value_error(("this processor or build has no '" + name + "' core").c_str());
}

/// Before the tiles trust its sizes.
void check_epilogue(const Inputs& in, bool is_double) {
  if (!in.epilogue) return;
  const TileEpilogue& e = *pointer<const TileEpilogue>(in.epilogue);
  const int scalar_bytes = is_double ? sizeof(double) : sizeof(float);
  if (e.channels == in.num_identity && e.width == in.width && e.height == in.height && e.threads >= in.threads &&
      e.scalar_bytes == scalar_bytes)
    return;
  const auto told = [](int channels, int width, int height, int bytes, int threads) {
    return std::to_string(channels) + " channels of " + std::to_string(width) + "x" + std::to_string(height) + " pixels, " +
           std::to_string(8 * bytes) + " bits, " + std::to_string(threads) + " threads";
  };
  const std::string made_for = told(e.channels, e.width, e.height, e.scalar_bytes, e.threads);
  const std::string called_for = told(in.num_identity, in.width, in.height, scalar_bytes, in.threads);
  throw nb::value_error(("epilogue: made for " + made_for + "; called for " + called_for).c_str());
}

}  // namespace
}  // namespace gs

NB_MODULE(_core, m) {
  using namespace gs;
  nb::set_leak_warnings(false);  // graphs and the pool of frames may outlive the interpreter's last collection
  nb::class_<Inputs>(m, "Inputs")
      .def(nb::init<>())
      .def_rw("num_gaussians", &Inputs::num_gaussians)
      .def_rw("width", &Inputs::width)
      .def_rw("height", &Inputs::height)
      .def_rw("sh_degree", &Inputs::sh_degree)
      .def_rw("num_identity", &Inputs::num_identity)
      .def_rw("num_rest", &Inputs::num_rest)
      .def_rw("threads", &Inputs::threads)
      .def_rw("identity_geometry_grad", &Inputs::identity_geometry_grad)
      .def_rw("tan_fov_x", &Inputs::tan_fov_x)
      .def_rw("tan_fov_y", &Inputs::tan_fov_y)
      .def_rw("scale_modifier", &Inputs::scale_modifier)
      .def_rw("view", &Inputs::view)
      .def_rw("proj", &Inputs::proj)
      .def_rw("camera_position", &Inputs::camera_position)
      .def_rw("background", &Inputs::background)
      .def_rw("means", &Inputs::means)
      .def_rw("opacities", &Inputs::opacities)
      .def_rw("scales", &Inputs::scales)
      .def_rw("rotations", &Inputs::rotations)
      .def_rw("covariances", &Inputs::covariances)
      .def_rw("sh_dc", &Inputs::sh_dc)
      .def_rw("sh_rest", &Inputs::sh_rest)
      .def_rw("colors", &Inputs::colors)
      .def_rw("identity", &Inputs::identity)
      .def_rw("epilogue", &Inputs::epilogue)
      .def_rw("sh_dc_stride", &Inputs::sh_dc_stride)
      .def_rw("sh_rest_stride", &Inputs::sh_rest_stride);
  nb::class_<Outputs>(m, "Outputs")
      .def(nb::init<>())
      .def_rw("color", &Outputs::color)
      .def_rw("objects", &Outputs::objects)
      .def_rw("radii", &Outputs::radii)
      .def_rw("alpha", &Outputs::alpha)
      .def_rw("depth", &Outputs::depth);
  nb::class_<OutputGradients>(m, "OutputGradients")
      .def(nb::init<>())
      .def_rw("color", &OutputGradients::color)
      .def_rw("objects", &OutputGradients::objects)
      .def_rw("alpha", &OutputGradients::alpha)
      .def_rw("depth", &OutputGradients::depth)
      .def_rw("epilogue", &OutputGradients::epilogue);
  nb::class_<InputGradients>(m, "InputGradients")
      .def(nb::init<>())
      .def_rw("means", &InputGradients::means)
      .def_rw("means2d", &InputGradients::means2d)
      .def_rw("opacities", &InputGradients::opacities)
      .def_rw("scales", &InputGradients::scales)
      .def_rw("rotations", &InputGradients::rotations)
      .def_rw("covariances", &InputGradients::covariances)
      .def_rw("sh_dc", &InputGradients::sh_dc)
      .def_rw("sh_rest", &InputGradients::sh_rest)
      .def_rw("colors", &InputGradients::colors)
      .def_rw("identity", &InputGradients::identity)
      .def_rw("sh_dc_stride", &InputGradients::sh_dc_stride)
      .def_rw("sh_rest_stride", &InputGradients::sh_rest_stride);
  nb::class_<Frame>(m, "Frame")
      .def(nb::init<>())
      .def_ro("num_visible", &Frame::num_visible)
      .def_ro("num_instances", &Frame::num_instances)
      .def("count_blended_blocks", [](const Frame& frame) {
        int64_t count = 0;
        for (int64_t row = 0; row < frame.num_instances; ++row) count += __builtin_popcount(frame.hits[row]);
        return count;
      }, "4x4-pixel blocks into which some Gaussian was blended, summed over Gaussians: the work of the last forward pass.");

  m.def("instruction_sets", [] {
    std::vector<std::string> names;
    for (const Core* core : available_cores()) names.push_back(core->name);
    return names;
  }, "Instruction sets of this build that this processor can run, best first.");
  m.def("forward", [](const std::string& isa, bool is_double, Frame& frame, const Inputs& in, const Outputs& out) {
    const Core& core = core_named(isa);
    check_epilogue(in, is_double);
    nb::gil_scoped_release release;
    return (is_double ? core.forward_f64 : core.forward_f32)(frame, in, out);
  }, "Renders; returns 0 or the bits of the inputs that hold NaN or Inf.");
  m.def("backward", [](const std::string& isa, bool is_double, Frame& frame, const Inputs& in, const Outputs& out,
                       const OutputGradients& out_grad, const InputGradients& grad) {
    const Core& core = core_named(isa);
    nb::gil_scoped_release release;
    (is_double ? core.backward_f64 : core.backward_f32)(frame, in, out, out_grad, grad);
  }, "Fills the input gradients from the frame that forward left.");
}
