// The kernels for one instruction set: compiled once per set, FUSED_LOSSES_ISA names the table's namespace.
#include "kernels.h"

#ifdef _OPENMP
#include <omp.h>
#endif

#include "adam.h"
#include "cross_entropy.h"
#include "l1_ssim.h"

namespace fused_losses {
namespace {

template <class S>
int CrossEntropyKernel<S>::thread_index() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

template <class S>
L1Ssim l1_ssim(const L1SsimProblem<S>& problem) {
  return problem.target_is_uint8 ? L1SsimKernel<S, uint8_t>(problem).run()
                                 : L1SsimKernel<S, S>(problem).run();
}

template <class S>
CrossEntropy cross_entropy(const CrossEntropyProblem<S>& problem) {
  return CrossEntropyKernel<S>(problem).run();
}

template <class S>
int64_t begin_tiles(TiledCrossEntropy<S>& tiled) {
  tiled.epilogue.state = &tiled;
  tiled.epilogue.run = [](void* state, const FinishedTile& tile) {
    const auto& t = *static_cast<const TiledCrossEntropy<S>*>(state);
    CrossEntropyKernel<S>(t.problem).run_tile(tile, t.width, t.height, t.pixel_scale);
  };
  return CrossEntropyKernel<S>(tiled.problem).begin_tiles(tiled.pixel_scale);
}

template <class S>
double end_tiles(const TiledCrossEntropy<S>& tiled) {
  const int64_t tiles = ((tiled.width + 15) / 16) * ((tiled.height + 15) / 16), group = tiles_in_group(tiles);
  return CrossEntropyKernel<S>(tiled.problem).end_tiles((tiles + group - 1) / group);
}

}  // namespace

namespace FUSED_LOSSES_ISA {
const Kernels kernels = {FUSED_LOSSES_VECTOR_BYTES, l1_ssim<float>,
                         l1_ssim<double>,           cross_entropy<float>,
                         cross_entropy<double>,     begin_tiles<float>,
                         begin_tiles<double>,       end_tiles<float>,
                         end_tiles<double>,         adam};
}  // namespace FUSED_LOSSES_ISA

}  // namespace fused_losses
