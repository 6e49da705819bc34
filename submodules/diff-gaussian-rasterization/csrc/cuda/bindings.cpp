// The Python module of the CUDA part. Its calls take the structs of _core, which must be imported first.
#include <nanobind/nanobind.h>

#include "cuda/rasterizer.h"

namespace nb = nanobind;

namespace {

/// body(float) or body(double); only the tests' build has the latter.
template <class Body>
auto with_scalar(bool is_double, Body body) {
#ifdef GS_CUDA_DOUBLE
  if (is_double) return body(double());
#endif
  if (is_double) throw nb::value_error("the CUDA part takes float32");
  return body(float());
}

}  // namespace

NB_MODULE(_cuda, m) {
  using namespace gs;
  using cuda::Workspace;
  nb::set_leak_warnings(false);  // graphs and the pool of workspaces may outlive the interpreter's last collection
#ifdef GS_CUDA_DOUBLE
  m.attr("HAS_DOUBLE") = true;
#else
  m.attr("HAS_DOUBLE") = false;
#endif
  m.attr("COUNT_BYTES") = cuda::kCountBytes;
  nb::class_<Workspace>(m, "Workspace")
      .def(nb::init<>())
      .def_rw("gaussians", &Workspace::gaussians)
      .def_rw("instances", &Workspace::instances)
      .def_rw("gradients", &Workspace::gradients)
      .def_rw("counts", &Workspace::counts)
      .def_rw("stream", &Workspace::stream)
      .def_ro("num_visible", &Workspace::num_visible)
      .def_ro("num_instances", &Workspace::num_instances);

  m.def("gaussian_bytes", [](bool is_double, const Inputs& in) {
    return with_scalar(is_double, [&](auto scalar) { return cuda::gaussian_bytes<decltype(scalar)>(in); });
  }, "Memory that `prepare` needs.");
  m.def("instance_bytes", [](bool is_double, const Inputs& in, const Workspace& workspace) {
    return with_scalar(is_double, [&](auto scalar) { return cuda::instance_bytes<decltype(scalar)>(in, workspace.num_instances); });
  }, "Memory that `render` needs, after `prepare`.");
  m.def("gradient_bytes", [](bool is_double, const Inputs& in, const Workspace& workspace) {
    return with_scalar(is_double, [&](auto scalar) { return cuda::gradient_bytes<decltype(scalar)>(in, workspace.num_instances); });
  }, "Memory that `backward` needs, after `prepare`.");
  m.def("prepare", [](bool is_double, Workspace& workspace, const Inputs& in, const Outputs& out) {
    nb::gil_scoped_release release;
    return with_scalar(is_double, [&](auto scalar) { return cuda::prepare<decltype(scalar)>(workspace, in, out); });
  }, "Projects and counts; waits. Returns 0 or the bits of the inputs that hold NaN or Inf.");
  m.def("render", [](bool is_double, const Workspace& workspace, const Inputs& in, const Outputs& out) {
    nb::gil_scoped_release release;
    with_scalar(is_double, [&](auto scalar) { cuda::render<decltype(scalar)>(workspace, in, out); });
  }, "Fills the images.");
  m.def("backward", [](bool is_double, const Workspace& workspace, const Inputs& in, const Outputs& out, const OutputGradients& out_grad,
                       const InputGradients& grad) {
    nb::gil_scoped_release release;
    with_scalar(is_double, [&](auto scalar) { cuda::backward<decltype(scalar)>(workspace, in, out, out_grad, grad); });
  }, "Fills the input gradients from what `prepare` and `render` left.");
}
