// The order of the kernels of one step.
#include <type_traits>

#include "binning.h"
#include "gaussians.h"
#include "rasterizer.h"
#include "tiles.h"

namespace gs {
namespace cuda {
namespace {

static_assert(sizeof(Counts) == kCountBytes, "what Python allocates");
constexpr int64_t kMaxInstances = int64_t(1) << 31;  // rows and instances have 32-bit numbers

/// 16 bits name every tile of images up to 65,535 tiles, and half as many passes sort them.
bool has_short_keys(const Inputs& in) { return Grid(in).tiles() < 65536; }

template <class Body>
void with_key_type(const Inputs& in, Body body) {
  has_short_keys(in) ? body(uint16_t()) : body(uint32_t());
}

template <class Body>
void with_degree(const Inputs& in, Body body) {
  switch (in.colors ? 0 : in.sh_degree) {
    case 0:
      return body(std::integral_constant<int, 0>());
    case 1:
      return body(std::integral_constant<int, 1>());
    case 2:
      return body(std::integral_constant<int, 2>());
    default:
      return body(std::integral_constant<int, 3>());
  }
}

/// Calls body(pass, the number of channels that its kernel is compiled for) until all channels are done.
template <class Body>
void for_each_pass(const Inputs& in, Body body) {
  const int channels = kIdentityChannels + in.num_identity;
  for (int first = 0; first < channels; first += kMaxChannels) {
    const int count = channels - first < kMaxChannels ? channels - first : kMaxChannels;
    const Pass pass = {first, count, in.identity_geometry_grad ? count : first == 0 ? kIdentityChannels : 0};
    if (pass.count <= 4)
      body(pass, std::integral_constant<int, 4>());
    else if (pass.count <= 12)
      body(pass, std::integral_constant<int, 12>());
    else
      body(pass, std::integral_constant<int, kMaxChannels>());
  }
}

cudaStream_t stream_of(const Workspace& workspace) { return reinterpret_cast<cudaStream_t>(workspace.stream); }

/// Instances by tile, then by depth.
template <class T, class Key>
void bin_into_tiles(const Workspace& workspace, const Inputs& in, const Outputs& out) {
  const cudaStream_t stream = stream_of(workspace);
  const Grid grid(in);
  const GaussianMemory<T> gaussians(in, workspace.gaussians);
  const InstanceMemory<Key> memory(in, workspace.num_instances, workspace.instances);
  launch(divide_up(workspace.num_visible, kSegment), kSegment, stream, list_tiles<T, Key>, gaussians.packed,
         pointer<const int32_t>(out.radii), gaussians.tile_count, gaussians.order(), gaussians.counts, gaussians.segment_row,
         grid, gaussians.first_row, memory.by_tile.keys[0], memory.gaussian_of_row);
  sort_pairs(stream, memory.by_tile, workspace.num_instances, int(sizeof(Key)) * 8, &gaussians.counts->sorted);
  launch(divide_up(workspace.num_instances, 256), 256, stream, make_instances, memory.by_tile.values[0], memory.gaussian_of_row,
         workspace.num_instances, memory.instances);
  launch(divide_up(grid.tiles() + 1, 256), 256, stream, find_tiles<Key>, memory.by_tile.keys[0],
         uint32_t(workspace.num_instances), grid.tiles(), memory.tile_begin);
  launch(1, kScanThreads, stream, order_tiles, memory.tile_begin, grid.tiles(), memory.tile_order);
}

template <class Key>
TileLists lists_of(const InstanceMemory<Key>& memory) {
  return {memory.tile_begin, memory.tile_order, memory.instances, memory.words_done, memory.hits};
}

template <class T>
TileGaussians<T> tile_gaussians(const Workspace& workspace, const Inputs& in) {
  return {GaussianMemory<T>(in, workspace.gaussians).packed, pointer<const T>(in.identity), in.num_identity};
}

}  // namespace

template <class T>
int64_t gaussian_bytes(const Inputs& in) {
  return GaussianMemory<T>(in, 0).bytes;
}
template <class T>
int64_t instance_bytes(const Inputs& in, int64_t num_instances) {
  int64_t bytes = 0;
  with_key_type(in, [&](auto key) { bytes = InstanceMemory<decltype(key)>(in, num_instances, 0).bytes; });
  return bytes;
}
template <class T>
int64_t gradient_bytes(const Inputs& in, int64_t num_instances) {
  return GradientMemory<T>(in, num_instances, 0).bytes;
}

template <class T>
int prepare(Workspace& workspace, const Inputs& in, const Outputs& out) {
  const cudaStream_t stream = stream_of(workspace);
  const GaussianMemory<T> memory(in, workspace.gaussians);
  const int64_t blocks = divide_up(in.num_gaussians, kGaussianThreads), segments = divide_up(in.num_gaussians, kSegment);
  check(cudaMemsetAsync(memory.counts, 0, sizeof(Counts), stream));
  with_degree(in, [&](auto degree) {
    launch(blocks, kGaussianThreads, stream, project_gaussians<T, decltype(degree)::value>, Gaussians<T>(in), View<T>(in),
           Grid(in), pointer<int32_t>(out.radii), memory);
  });
  sort_pairs(stream, memory.by_depth, in.num_gaussians, 32, &memory.counts->visible);
  launch(segments, kSegment, stream, count_rows, memory.order(), memory.tile_count, memory.counts, memory.segment_row);
  launch(1, kScanThreads, stream, scan_segments, memory.segment_row, segments, memory.counts);

  Counts* const counts = pointer<Counts>(workspace.counts);
  check(cudaMemcpyAsync(counts, memory.counts, sizeof(Counts), cudaMemcpyDeviceToHost, stream));
  check(cudaStreamSynchronize(stream));
  if (counts->instances >= kMaxInstances)
    throw std::length_error("the view has " + std::to_string(counts->instances) +
                            " Gaussians, counted once for each tile of 16x16 pixels that they reach: 2^31 are too many");
  workspace.num_visible = counts->visible, workspace.num_instances = counts->instances;
  return int(counts->invalid);
}

template <class T>
void render(const Workspace& workspace, const Inputs& in, const Outputs& out) {
  with_key_type(in, [&](auto key) {
    using Key = decltype(key);
    bin_into_tiles<T, Key>(workspace, in, out);
    const TileLists lists = lists_of(InstanceMemory<Key>(in, workspace.num_instances, workspace.instances));
    for_each_pass(in, [&](Pass pass, auto channels) {
      launch(Grid(in).tiles(), kTileThreads, stream_of(workspace), forward_tiles<T, decltype(channels)::value>,
             Images<T>(out, in), pointer<const T>(in.background), tile_gaussians<T>(workspace, in), Grid(in), lists, pass);
    });
  });
}

template <class T>
void backward(const Workspace& workspace, const Inputs& in, const Outputs& out, const OutputGradients& out_grad,
              const InputGradients& grad) {
  const cudaStream_t stream = stream_of(workspace);
  const GaussianMemory<T> memory(in, workspace.gaussians);
  const GradientMemory<T> gradients(in, workspace.num_instances, workspace.gradients);
  check(cudaMemsetAsync(gradients.touched, 0, size_t(workspace.num_instances), stream));
  with_key_type(in, [&](auto key) {
    const TileLists lists = lists_of(InstanceMemory<decltype(key)>(in, workspace.num_instances, workspace.instances));
    for_each_pass(in, [&](Pass pass, auto channels) {
      constexpr int kChannels = decltype(channels)::value;
      // the scalar sums over channels need only depth and colour where the identity map does not move the geometry
      const auto kernel = in.identity_geometry_grad ? backward_tiles<T, kChannels, kChannels> : backward_tiles<T, kChannels, 4>;
      launch(Grid(in).tiles(), kTileThreads, stream, kernel, Images<const T>(out, in), Images<const T>(out_grad, in),
             tile_gaussians<T>(workspace, in), Grid(in), lists, gradients, pass);
    });
  });
  with_degree(in, [&](auto degree) {
    launch(divide_up(in.num_gaussians, kGaussianThreads), kGaussianThreads, stream,
           gaussians_backward<T, decltype(degree)::value>, Gaussians<T>(in), View<T>(in), GaussianGradients<T>(grad), memory,
           gradients);
  });
}

#define GS_INSTANTIATE(T)                                                   \
  template int64_t gaussian_bytes<T>(const Inputs&);                        \
  template int64_t instance_bytes<T>(const Inputs&, int64_t);               \
  template int64_t gradient_bytes<T>(const Inputs&, int64_t);               \
  template int prepare<T>(Workspace&, const Inputs&, const Outputs&);       \
  template void render<T>(const Workspace&, const Inputs&, const Outputs&); \
  template void backward<T>(const Workspace&, const Inputs&, const Outputs&, const OutputGradients&, const InputGradients&);
GS_INSTANTIATE(float)
#ifdef GS_CUDA_DOUBLE  // the tests' build, which compares with the reference to 1e-9
GS_INSTANTIATE(double)
#endif

}  // namespace cuda
}  // namespace gs
