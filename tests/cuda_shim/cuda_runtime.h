// A stand-in for CUDA's header: the same .cu sources, compiled as C++17, run on the CPU and are checked
// (README.md).
//
// Test-only. It holds what our kernels use and no more; what is missing fails to compile. Every thread of a
// block is a fibre, blocks run one after another; runtime.cpp schedules them and judges every memory access.
#pragma once

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <type_traits>
#include <utility>

#define CUDART_VERSION 13000

// ---- the language
// ---------------------------------------------------------------------------------------------------

#define __global__ __attribute__((noinline))
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __shared__ static  // blocks run one after another: one copy serves them all
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

#define SHIM_VECTORS(T, name, align1, align2, align4)                \
  struct alignas(align2) name##2 { T x, y; };                        \
  struct name##3 { T x, y, z; };                                     \
  struct alignas(align4) name##4 { T x, y, z, w; };                  \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }         \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; } \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
SHIM_VECTORS(signed char, char, 1, 2, 4)
SHIM_VECTORS(unsigned char, uchar, 1, 2, 4)
SHIM_VECTORS(short, short, 2, 4, 8)
SHIM_VECTORS(unsigned short, ushort, 2, 4, 8)
SHIM_VECTORS(int, int, 4, 8, 16)
SHIM_VECTORS(unsigned, uint, 4, 8, 16)
SHIM_VECTORS(long long, longlong, 8, 16, 16)
SHIM_VECTORS(unsigned long long, ulonglong, 8, 16, 16)
SHIM_VECTORS(float, float, 4, 8, 16)
SHIM_VECTORS(double, double, 8, 16, 16)

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace shim {
extern struct Indices {
  uint3 threadIdx, blockIdx;
  dim3 blockDim, gridDim;
} indices;  // of the fibre that runs
}  // namespace shim
[[maybe_unused]] static uint3& threadIdx = shim::indices.threadIdx;
[[maybe_unused]] static uint3& blockIdx = shim::indices.blockIdx;
[[maybe_unused]] static dim3& blockDim = shim::indices.blockDim;
[[maybe_unused]] static dim3& gridDim = shim::indices.gridDim;
constexpr int warpSize = 32;

// ---- what runtime.cpp offers
// ----------------------------------------------------------------------------------------

namespace shim {

struct Site {  // where the source calls a barrier or a warp function
  const char* file;
  int line;
};
#define SHIM_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

enum class Vote { kNone, kCount, kAnd, kOr };
enum class WarpOp {
  kSync,
  kShfl,
  kUp,
  kDown,
  kXor,
  kBallot,
  kMatchAny,
  kAdd,
  kMin,
  kMax,
  kAnd,
  kOr,
  kXorBits
};

int barrier(Vote vote, int predicate, Site site);
uint64_t warp(WarpOp op, unsigned mask, uint64_t value, int argument, int width, Site site);
void atomic(const volatile void* address, size_t bytes, const void* pc);  // checks one
void fence();                                                             // __threadfence()
void yield();

struct Kernel {  // calls the kernel with its arguments on the fibre that runs
  const void* address;
  void (*call)(void* context);
  void* context;
};
int launch(dim3 grid, dim3 block, size_t dynamic_shared, const Kernel& kernel);

template <class To, class From>
inline __attribute__((no_sanitize("thread"))) To bits(From from) {
  static_assert(sizeof(From) <= sizeof(To), "at most 8 bytes travel between lanes");
  To to{};
  memcpy(&to, &from, sizeof(From));
  return to;
}
template <class T>
inline __attribute__((no_sanitize("thread"))) T narrow(uint64_t value) {
  T result;
  memcpy(&result, &value, sizeof(T));
  return result;
}

template <class T, class F>
inline __attribute__((no_sanitize("thread"), noinline)) T read_modify_write(T* address, F change) {
  atomic(address, sizeof(T), __builtin_return_address(0));
  const T old = *address;
  *address = change(old);
  return old;
}

}  // namespace shim

// ---- barriers, fences, warps
// ----------------------------------------------------------------------------------------

inline void __syncthreads(SHIM_SITE) { shim::barrier(shim::Vote::kNone, 0, {file, line}); }
inline int __syncthreads_count(int p, SHIM_SITE) {
  return shim::barrier(shim::Vote::kCount, p, {file, line});
}
inline int __syncthreads_and(int p, SHIM_SITE) { return shim::barrier(shim::Vote::kAnd, p, {file, line}); }
inline int __syncthreads_or(int p, SHIM_SITE) { return shim::barrier(shim::Vote::kOr, p, {file, line}); }
inline void __threadfence() { shim::fence(); }
inline void __threadfence_system() { shim::fence(); }
inline void __threadfence_block() {}
inline void __nanosleep(unsigned) { shim::yield(); }

inline void __syncwarp(unsigned mask = 0xFFFFFFFFu, SHIM_SITE) {
  shim::warp(shim::WarpOp::kSync, mask, 0, 0, 32, {file, line});
}
// The value of __activemask is unspecified on the GPU: the shim gives the least that it may be, the calling
// lane.
inline unsigned __activemask() {
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  return 1u << (thread & 31u);
}

#define SHIM_SHUFFLE(name, op, argument_type)                                                   \
  template <class T>                                                                            \
  inline T name(unsigned mask, T value, argument_type argument, int width = 32, SHIM_SITE) {    \
    return shim::narrow<T>(                                                                     \
        shim::warp(op, mask, shim::bits<uint64_t>(value), int(argument), width, {file, line})); \
  }
SHIM_SHUFFLE(__shfl_sync, shim::WarpOp::kShfl, int)
SHIM_SHUFFLE(__shfl_up_sync, shim::WarpOp::kUp, unsigned)
SHIM_SHUFFLE(__shfl_down_sync, shim::WarpOp::kDown, unsigned)
SHIM_SHUFFLE(__shfl_xor_sync, shim::WarpOp::kXor, int)

inline unsigned __ballot_sync(unsigned mask, int p, SHIM_SITE) {
  return unsigned(shim::warp(shim::WarpOp::kBallot, mask, p != 0, 0, 32, {file, line}));
}
inline int __any_sync(unsigned mask, int p, SHIM_SITE) {
  return shim::warp(shim::WarpOp::kBallot, mask, p != 0, 0, 32, {file, line}) != 0;
}
inline int __all_sync(unsigned mask, int p, SHIM_SITE) {
  return shim::warp(shim::WarpOp::kBallot, mask, p == 0, 0, 32, {file, line}) == 0;
}
template <class T>
inline unsigned __match_any_sync(unsigned mask, T value, SHIM_SITE) {
  return unsigned(
      shim::warp(shim::WarpOp::kMatchAny, mask, shim::bits<uint64_t>(value), 0, 32, {file, line}));
}
// Compute capability 8.0 and later, as on the GPU: 32-bit integers only; signed values only for add, min and
// max.
#define SHIM_REDUCE(name, op, T)                                                                          \
  inline T name(unsigned mask, T value, SHIM_SITE) {                                                      \
    return T(shim::warp(op, mask, uint64_t(int64_t(value)), std::is_signed<T>::value, 32, {file, line})); \
  }
SHIM_REDUCE(__reduce_add_sync, shim::WarpOp::kAdd, unsigned)
SHIM_REDUCE(__reduce_add_sync, shim::WarpOp::kAdd, int)
SHIM_REDUCE(__reduce_min_sync, shim::WarpOp::kMin, unsigned)
SHIM_REDUCE(__reduce_min_sync, shim::WarpOp::kMin, int)
SHIM_REDUCE(__reduce_max_sync, shim::WarpOp::kMax, unsigned)
SHIM_REDUCE(__reduce_max_sync, shim::WarpOp::kMax, int)
SHIM_REDUCE(__reduce_and_sync, shim::WarpOp::kAnd, unsigned)
SHIM_REDUCE(__reduce_or_sync, shim::WarpOp::kOr, unsigned)
SHIM_REDUCE(__reduce_xor_sync, shim::WarpOp::kXorBits, unsigned)

// ---- atomics
// --------------------------------------------------------------------------------------------------------

#define SHIM_ATOMIC(name, T, expression)                                                             \
  inline T name(T* address, T value) {                                                               \
    return shim::read_modify_write(address, [=](T old) -> T { return static_cast<T>(expression); }); \
  }
#define SHIM_ATOMICS_INTEGER(T)                                                                   \
  SHIM_ATOMIC(atomicMin, T, value < old ? value : old)                                            \
  SHIM_ATOMIC(atomicMax, T, value > old ? value : old)                                            \
  SHIM_ATOMIC(atomicAnd, T, old& value)                                                           \
  SHIM_ATOMIC(atomicOr, T, old | value)                                                           \
  SHIM_ATOMIC(atomicXor, T, old ^ value)                                                          \
  SHIM_ATOMIC(atomicExch, T, ((void)old, value))                                                  \
  inline T atomicCAS(T* address, T compare, T value) {                                            \
    return shim::read_modify_write(address, [=](T old) { return old == compare ? value : old; }); \
  }
SHIM_ATOMICS_INTEGER(int)
SHIM_ATOMICS_INTEGER(unsigned)
SHIM_ATOMICS_INTEGER(unsigned long long)
SHIM_ATOMIC(atomicMin, long long, value < old ? value : old)
SHIM_ATOMIC(atomicMax, long long, value > old ? value : old)
SHIM_ATOMIC(atomicAdd, int, unsigned(old) + unsigned(value))
SHIM_ATOMIC(atomicAdd, unsigned, old + value)
SHIM_ATOMIC(atomicAdd, unsigned long long, old + value)
SHIM_ATOMIC(atomicAdd, float, old + value)
SHIM_ATOMIC(atomicAdd, double, old + value)
SHIM_ATOMIC(atomicSub, int, unsigned(old) - unsigned(value))
SHIM_ATOMIC(atomicSub, unsigned, old - value)
SHIM_ATOMIC(atomicExch, float, ((void)old, value))
SHIM_ATOMIC(atomicInc, unsigned, old >= value ? 0u : old + 1u)
SHIM_ATOMIC(atomicDec, unsigned, old == 0u || old > value ? value : old - 1u)

// ---- loads, stores, arithmetic
// --------------------------------------------------------------------------------------

#define SHIM_LOAD(name)                \
  template <class T>                   \
  __forceinline__ T name(const T* p) { \
    return *p;                         \
  }
SHIM_LOAD(__ldg)
SHIM_LOAD(__ldca)
SHIM_LOAD(__ldcg)
SHIM_LOAD(__ldcs)
#define SHIM_STORE(name)                     \
  template <class T>                         \
  __forceinline__ void name(T* p, T value) { \
    *p = value;                              \
  }
SHIM_STORE(__stwb)
SHIM_STORE(__stcg)
SHIM_STORE(__stcs)

// Macros where the C library declares the name for itself.
#define __expf(x) expf(x)
#define __exp10f(x) exp10f(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __log10f(x) log10f(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __tanf(x) tanf(x)
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dsub_rn(double x, double y) { return x - y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }

inline int __float_as_int(float x) { return shim::bits<int>(x); }
inline unsigned __float_as_uint(float x) { return shim::bits<unsigned>(x); }
inline float __int_as_float(int x) { return shim::bits<float>(x); }
inline float __uint_as_float(unsigned x) { return shim::bits<float>(x); }
inline long long __double_as_longlong(double x) { return shim::bits<long long>(x); }
inline double __longlong_as_double(long long x) { return shim::bits<double>(x); }
inline int __float2int_rn(float x) { return int(nearbyintf(x)); }
inline int __float2int_rz(float x) { return int(x); }
inline int __float2int_rd(float x) { return int(floorf(x)); }
inline int __float2int_ru(float x) { return int(ceilf(x)); }
inline unsigned __float2uint_rn(float x) { return unsigned(nearbyintf(x)); }
inline unsigned __float2uint_rz(float x) { return unsigned(x); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
inline unsigned __brev(unsigned x) {
  x = (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
  x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
  x = (x >> 4 & 0x0F0F0F0Fu) | (x & 0x0F0F0F0Fu) << 4;
  return __builtin_bswap32(x);
}
inline unsigned __umulhi(unsigned x, unsigned y) { return unsigned((uint64_t(x) * y) >> 32); }
inline int __mul24(int x, int y) { return x * y; }
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return unsigned((((uint64_t(high) << 32) | low) << (shift & 31u)) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return unsigned(((uint64_t(high) << 32) | low) >> (shift & 31u));
}

#define SHIM_MIN_MAX(T)                               \
  constexpr T min(T a, T b) { return b < a ? b : a; } \
  constexpr T max(T a, T b) { return a < b ? b : a; }
SHIM_MIN_MAX(int)
SHIM_MIN_MAX(unsigned)
SHIM_MIN_MAX(long)
SHIM_MIN_MAX(unsigned long)
SHIM_MIN_MAX(long long)
SHIM_MIN_MAX(unsigned long long)
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

// ---- the host's side
// ------------------------------------------------------------------------------------------------

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorNoDevice = 100,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorLaunchFailure = 719,
};
enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault
};
enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize,
  cudaFuncAttributePreferredSharedMemoryCarveout
};
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
};
enum : unsigned { cudaStreamNonBlocking = 1, cudaHostAllocDefault = 0, cudaEventDisableTiming = 2 };

struct CUstream_st;
struct CUevent_st;
using cudaStream_t = CUstream_st*;
using cudaEvent_t = CUevent_st*;
struct cudaLaunchAttribute {};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};
struct cudaDeviceProp {
  char name[256];
  int major, minor, multiProcessorCount, maxThreadsPerBlock, warpSize, l2CacheSize;
  size_t totalGlobalMem, sharedMemPerBlock, sharedMemPerMultiprocessor;
};

const char* cudaGetErrorString(cudaError_t error);  // of a failed launch: what the checks found
const char* cudaGetErrorName(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
cudaError_t cudaMalloc(void** pointer, size_t bytes);
cudaError_t cudaFree(void* pointer);
template <class T>
cudaError_t cudaMalloc(T** pointer, size_t bytes) {
  return cudaMalloc(reinterpret_cast<void**>(pointer), bytes);
}
inline cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t) {
  return cudaMalloc(pointer, bytes);
}
inline cudaError_t cudaFreeAsync(void* pointer, cudaStream_t) { return cudaFree(pointer); }
inline cudaError_t cudaMallocHost(void** pointer, size_t bytes) { return cudaMalloc(pointer, bytes); }
inline cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned) {
  return cudaMalloc(pointer, bytes);
}
inline cudaError_t cudaFreeHost(void* pointer) { return cudaFree(pointer); }
inline cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  memcpy(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                                   cudaStream_t = {}) {
  return cudaMemcpy(to, from, bytes, kind);
}
inline cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  memset(to, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t = {}) {
  return cudaMemset(to, value, bytes);
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaPeekAtLastError(); }
inline cudaError_t cudaDeviceSynchronize() { return cudaPeekAtLastError(); }
inline cudaError_t cudaStreamCreate(cudaStream_t* stream) { return *stream = nullptr, cudaSuccess; }
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  return cudaStreamCreate(stream);
}
inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned = 0) { return cudaSuccess; }
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return *event = nullptr, cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t = {}) { return cudaSuccess; }
inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaPeekAtLastError(); }
inline cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
inline cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13000, cudaSuccess; }
inline cudaError_t cudaDriverGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
template <class F>
cudaError_t cudaFuncSetAttribute(F*, cudaFuncAttribute, int) {
  return cudaSuccess;
}
template <class F>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, F*, int, size_t) {
  return *blocks = 2, cudaSuccess;
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  auto call = [&]() __attribute__((no_sanitize("thread"))) { kernel(Parameters(arguments)...); };
  auto run = [](void* context)
                 __attribute__((no_sanitize("thread"))) { (*static_cast<decltype(call)*>(context))(); };
  return cudaError_t(shim::launch(config->gridDim, config->blockDim, config->dynamicSmemBytes,
                                  {reinterpret_cast<const void*>(kernel), run, &call}));
}
