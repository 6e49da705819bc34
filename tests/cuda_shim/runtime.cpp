// Runs kernels on fibres and judges every memory access; see README.md for what is checked and how.
//
// The .cu sources are compiled with -fsanitize=thread, which puts a call before every load and store; this
// file, compiled without it, defines those calls instead of linking ThreadSanitizer.
#include <dlfcn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#ifndef __x86_64__
#include <ucontext.h>
#endif

#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "cuda_runtime.h"

shim::Indices shim::indices;

namespace shim {
namespace {

constexpr int kMaxThreads = 1024;
constexpr size_t kStackBytes = 128 << 10;
constexpr size_t kSharedLimit = 48 << 10;  // static shared memory of every architecture

constexpr size_t kMaxErrors = 8;

// ---- state
// ----------------------------------------------------------------------------------------------------------

struct Access {    // the last one of its kind to four bytes; 0: none
  uint32_t epoch;  // of the barrier interval, counted over all blocks and launches
  uint32_t warp_epoch;
  uint32_t pc;  // offset in this library
  uint16_t thread;
  uint8_t mask;  // which of the four bytes
  bool atomic : 1, several_threads : 1, several_warps : 1;
};
struct Cell {
  Access write, read;
};

struct Buffer {  // global memory that kernels may touch
  uintptr_t end;
  Cell* cells;
  size_t cell_bytes;
  std::string name;
};

struct Shared {  // one __shared__ variable
  uintptr_t begin, end;
  std::string name;
  std::vector<Cell> cells;
  bool touched_in_block, touched_in_launch;
};

enum class State : uint8_t { kReady, kBarrier, kWarp, kExited };

struct Fibre {
  State state;
  uint3 index;
  Site site;
  Vote vote;
  WarpOp op;
  unsigned mask;
  uint64_t value, result;
  int argument, width;
#ifdef __x86_64__
  void* stack_pointer;
#else
  ucontext_t context;
#endif
};

Fibre fibres[kMaxThreads];
char* stacks;
int num_threads, current, waiting_at_barrier, exited;
std::vector<int> order;  // of the fibres
std::vector<int> ready;  // a ring
size_t ready_head, ready_count;
const Kernel* kernel;
bool in_kernel, failed, strict;
uint64_t seed;
uint32_t epoch = 1, launch_epoch, block_epoch, warp_epochs[kMaxThreads / 32];
std::vector<std::pair<uint32_t, bool>>
    block_fences;  // first epoch of each block of the launch, whether it fenced
size_t shared_bytes;
uintptr_t image_begin, image_end, variables_begin, variables_end;
std::map<uintptr_t, Buffer> buffers;
Buffer* cached;  // the one touched last, in [cached_begin, cached_end)
uintptr_t cached_begin, cached_end;
std::vector<Shared> shared;
std::vector<int> variable_of_byte;  // from variables_begin: index of `shared`, or one of
enum { kOtherVariable = -1, kNoVariable = -2 };
std::vector<std::string> errors;
std::set<std::string> keys;  // of the errors
std::string report;
struct {
  uint64_t launches, blocks, threads, accesses;
} statistics;

#ifdef __x86_64__
void* main_stack_pointer;
extern "C" void gradiseg_shim_switch(void** save, void* load);
asm(R"(
.text
.local gradiseg_shim_switch
.type gradiseg_shim_switch, @function
gradiseg_shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size gradiseg_shim_switch, .-gradiseg_shim_switch
)");
#else
ucontext_t main_context;
#endif

// ---- errors
// ---------------------------------------------------------------------------------------------------------

std::string format(const char* text, ...) {
  char line[1024];
  va_list arguments;
  va_start(arguments, text);
  vsnprintf(line, sizeof line, text, arguments);
  va_end(arguments);
  return line;
}

// {pc:OFFSET} is replaced by function and line on the Python side.
std::string place(uint32_t pc) { return format("{pc:%x}", pc); }
std::string place(Site site) { return format("%s:%d", site.file, site.line); }
std::string who(int thread) {
  return format("thread %d of block (%u, %u, %u)", thread, blockIdx.x, blockIdx.y, blockIdx.z);
}

uint32_t pc_of(const void* address) { return uint32_t(uintptr_t(address) - image_begin); }

// One finding per kind and place in the source (`key`): the others of a loop or a block say the same.
void add_error(const std::string& text, const std::string& key) {
  failed = true;
  if (errors.size() < kMaxErrors && keys.insert(key).second) errors.push_back(text);
}

[[noreturn]] void to_main();
[[noreturn]] void abort_launch(const std::string& text) {
  add_error(text, text);
  to_main();
}

// ---- fibres
// ---------------------------------------------------------------------------------------------------------

void make_ready(int thread) {
  fibres[thread].state = State::kReady;
  ready[(ready_head + ready_count++) % num_threads] = thread;
}

const char* name_of(WarpOp op) {
  static const char* const names[] = {
      "__syncwarp",        "__shfl_sync",      "__shfl_up_sync",    "__shfl_down_sync",  "__shfl_xor_sync",
      "a warp vote",       "__match_any_sync", "__reduce_add_sync", "__reduce_min_sync", "__reduce_max_sync",
      "__reduce_and_sync", "__reduce_or_sync", "__reduce_xor_sync"};
  return names[int(op)];
}

std::string describe_waiting() {
  std::map<std::string, std::pair<int, int>> groups;  // what -> (how many, the first)
  for (int t = 0; t < num_threads; ++t) {
    const Fibre& f = fibres[t];
    std::string what = "have exited";
    if (f.state == State::kBarrier) what = "wait at the barrier " + place(f.site);
    if (f.state == State::kWarp) what = format("wait at %s(0x%08x) ", name_of(f.op), f.mask) + place(f.site);
    auto& group = groups.emplace(what, std::make_pair(0, t)).first->second;
    ++group.first;
  }
  std::string text;
  for (const auto& [what, group] : groups)
    text +=
        format("%s%d threads (the first is %d) ", text.empty() ? "" : ", ", group.first, group.second) + what;
  return text;
}

void set_thread(int thread) {
  current = thread;
  threadIdx = fibres[thread].index;
}

// Runs the next fibre that can; back to launch() when the block is done or stuck.
void switch_away(Fibre& from) {
  if (ready_count == 0) {
    if (exited < num_threads)
      abort_launch(format("divergent barrier in block (%u, %u, %u): ", blockIdx.x, blockIdx.y, blockIdx.z) +
                   describe_waiting());
    to_main();
  }
  const int next = ready[ready_head];
  ready_head = (ready_head + 1) % num_threads;
  --ready_count;
  Fibre& to = fibres[next];
  set_thread(next);
  if (&from == &to) return;
#ifdef __x86_64__
  gradiseg_shim_switch(&from.stack_pointer, to.stack_pointer);
#else
  swapcontext(&from.context, &to.context);
#endif
}

void to_main() {
#ifdef __x86_64__
  void* abandoned;
  gradiseg_shim_switch(&abandoned, main_stack_pointer);
#else
  setcontext(&main_context);
#endif
  __builtin_unreachable();
}

void try_warp(int warp_index);

void run_fibre() {
  kernel->call(kernel->context);
  fibres[current].state = State::kExited;
  ++exited;
  try_warp(current / 32);  // the others of the warp need not wait for this lane any more
  switch_away(fibres[current]);
  __builtin_unreachable();
}

void prepare_fibre(int thread) {
  Fibre& f = fibres[thread];
  char* base = stacks + size_t(thread) * kStackBytes;
#ifdef __x86_64__
  // Tops lie at different distances from the page: equal ones would share one set of the first-level cache.
  void** top = reinterpret_cast<void**>(base + kStackBytes - 64 - size_t(thread % 61) * 64);
  *--top = nullptr;                              // keeps the alignment a called function expects
  *--top = reinterpret_cast<void*>(&run_fibre);  // where `ret` goes
  f.stack_pointer = top - 6;
#else
  getcontext(&f.context);
  f.context.uc_stack = {base, 0, kStackBytes};
  f.context.uc_link = nullptr;
  makecontext(&f.context, run_fibre, 0);
#endif
  f.state = State::kReady;
}

// ---- barriers and warps
// ---------------------------------------------------------------------------------------------

int lanes_of(int warp_index) { return std::min(32, num_threads - 32 * warp_index); }

bool same_site(Site a, Site b) { return a.line == b.line && (a.file == b.file || !strcmp(a.file, b.file)); }

uint64_t reduce(WarpOp op, bool is_signed, const Fibre* lanes, unsigned members) {
  bool first = true;
  uint32_t result = 0;
  for (int l = 0; l < 32; ++l) {
    if (!(members >> l & 1)) continue;
    const uint32_t v = uint32_t(lanes[l].value);
    const bool less = is_signed ? int32_t(v) < int32_t(result) : v < result;
    if (first)
      result = v;
    else if (op == WarpOp::kAdd)
      result += v;
    else if (op == WarpOp::kMin)
      result = less ? v : result;
    else if (op == WarpOp::kMax)
      result = less ? result : v;
    else if (op == WarpOp::kAnd)
      result &= v;
    else if (op == WarpOp::kOr)
      result |= v;
    else
      result ^= v;
    first = false;
  }
  return result;
}

uint64_t shuffle(const Fibre* lanes, int lane, unsigned members) {
  const Fibre& f = lanes[lane];
  const int base = lane & ~(f.width - 1);
  int source = lane;
  if (f.op == WarpOp::kShfl) source = base | (f.argument & (f.width - 1));
  if (f.op == WarpOp::kUp && lane - f.argument >= base) source = lane - f.argument;
  if (f.op == WarpOp::kDown && lane + f.argument < base + f.width) source = lane + f.argument;
  if (f.op == WarpOp::kXor && (lane ^ f.argument) < base + f.width) source = lane ^ f.argument;
  return members >> source & 1 ? lanes[source].value : ~uint64_t{0};  // undefined on the GPU: poison
}

// All of `members` have arrived: gives each its result.
void finish_warp(Fibre* lanes, unsigned members) {
  uint64_t ballot = 0;
  for (int l = 0; l < 32; ++l)
    if (members >> l & 1) ballot |= uint64_t(lanes[l].value & 1) << l;
  for (int l = 0; l < 32; ++l) {
    if (!(members >> l & 1)) continue;
    Fibre& f = lanes[l];
    switch (f.op) {
      case WarpOp::kSync:
        break;
      case WarpOp::kShfl:
      case WarpOp::kUp:
      case WarpOp::kDown:
      case WarpOp::kXor:
        f.result = shuffle(lanes, l, members);
        break;
      case WarpOp::kBallot:
        f.result = ballot;
        break;
      case WarpOp::kMatchAny:
        f.result = 0;
        for (int other = 0; other < 32; ++other)
          if ((members >> other & 1) && lanes[other].value == f.value) f.result |= 1u << other;
        break;
      default:
        f.result = reduce(f.op, f.argument, lanes, members);
    }
  }
}

// Lets a warp's collective call through once every lane that its mask names has arrived or exited.
void try_warp(int warp_index) {
  Fibre* lanes = fibres + 32 * warp_index;
  unsigned waiting = 0, alive = 0;
  for (int l = 0; l < lanes_of(warp_index); ++l) {
    if (lanes[l].state == State::kWarp) waiting |= 1u << l;
    if (lanes[l].state != State::kExited) alive |= 1u << l;
  }
  while (waiting) {
    const int first = __builtin_ctz(waiting);
    const unsigned mask = lanes[first].mask, members = mask & alive;
    unsigned same_mask = 0;
    for (int l = 0; l < 32; ++l)
      if ((waiting >> l & 1) && lanes[l].mask == mask) same_mask |= 1u << l;
    waiting &= ~same_mask;
    if (same_mask != members) continue;
    for (int l = 0; l < 32; ++l)
      if ((members >> l & 1) &&
          (lanes[l].op != lanes[first].op || !same_site(lanes[l].site, lanes[first].site)))
        abort_launch(
            format("divergent warp functions in block (%u, %u, %u): ", blockIdx.x, blockIdx.y, blockIdx.z) +
            describe_waiting());
    finish_warp(lanes, members);
    if (lanes[first].op == WarpOp::kSync) ++warp_epochs[warp_index];
    for (int l = 0; l < 32; ++l)
      if (members >> l & 1) {
        if (32 * warp_index + l == current)
          lanes[l].state = State::kReady;  // runs on, is not queued
        else
          make_ready(32 * warp_index + l);
      }
  }
}

void finish_barrier() {
  int count = 0;
  const Fibre& first = fibres[current];
  for (int t = 0; t < num_threads; ++t) {
    if (!same_site(fibres[t].site, first.site))
      abort_launch(format("divergent barrier in block (%u, %u, %u): ", blockIdx.x, blockIdx.y, blockIdx.z) +
                   describe_waiting());
    count += fibres[t].value != 0;
  }
  ++epoch;
  waiting_at_barrier = 0;
  ready_count = 0;
  for (int t : order) {
    Fibre& f = fibres[t];
    f.result = f.vote == Vote::kCount ? count : f.vote == Vote::kAnd ? count == num_threads : count > 0;
    if (t == current)
      f.state = State::kReady;
    else
      make_ready(t);
  }
}

// ---- checks of memory
// -----------------------------------------------------------------------------------------------

// Whether nothing orders the access that runs after the recorded one.
bool concurrent(const Access& a, bool of_read, uint32_t since) {
  if (a.epoch < since || a.mask == 0) return false;
  if (a.epoch < block_epoch) {  // another block of this launch: only a fence before a flag orders them
    auto block = std::upper_bound(block_fences.begin(), block_fences.end(), std::make_pair(a.epoch, true));
    return !(block - 1)->second;
  }
  if (a.epoch < epoch) return false;
  if (of_read && a.several_warps) return true;
  if (a.thread == current && !(of_read && a.several_threads)) return false;
  if (a.thread / 32 == current / 32) return a.warp_epoch == warp_epochs[current / 32];
  return true;
}

void record(Access& a, bool is_read, uint8_t mask, bool atomic, uint32_t pc) {
  Access next{epoch, warp_epochs[current / 32], pc, uint16_t(current), mask, atomic, false, false};
  if (is_read && a.epoch == epoch && (a.mask & mask)) {
    next.several_threads = a.several_threads || a.thread != current;
    next.several_warps = a.several_warps || a.thread / 32 != current / 32;
    if (a.warp_epoch != next.warp_epoch && !next.several_warps) next.several_threads = false;
    next.mask |= a.mask;
    next.atomic &= a.atomic;
  }
  if (!is_read && a.epoch == epoch && a.thread == current && a.warp_epoch == next.warp_epoch) {
    next.mask |= a.mask;
    next.atomic &= a.atomic;  // a plain write is not forgotten for an atomic one of the same thread
  }
  a = next;
}

void report_race(const char* verb, const Access& earlier, const char* earlier_verb, uint32_t pc,
                 const std::string& what) {
  const bool other_block = earlier.epoch < block_epoch;
  add_error(format("race on %s: ", what.c_str()) + earlier_verb + " at " + place(earlier.pc) +
                format(" by thread %d%s, then ", earlier.thread, other_block ? " of another block" : "") +
                verb + " at " + place(pc) + " by " + who(current) +
                (other_block ? " with no __threadfence between" : " with no barrier between"),
            place(earlier.pc) + verb + place(pc));
}

const char* verb_of(bool write, bool atomic) {
  return !write ? "read" : atomic ? "changed atomically" : "written";
}

// since: the first epoch whose accesses may conflict.
template <class Name>
void check_cell(Cell& cell, bool write, bool atomic, uint8_t mask, uint32_t pc, uint32_t since,
                const Name& name) {
  const char* verb = verb_of(write, atomic);
  if ((cell.write.mask & mask) && !(atomic && cell.write.atomic) && concurrent(cell.write, false, since))
    report_race(verb, cell.write, verb_of(true, cell.write.atomic), pc, name());
  if (write && (cell.read.mask & mask) && !(atomic && cell.read.atomic) && concurrent(cell.read, true, since))
    report_race(verb, cell.read, "read", pc, name());
  if (write)
    record(cell.write, false, mask, atomic, pc);
  else
    record(cell.read, true, mask, atomic, pc);
}

template <class Name>
void check_cells(Cell* cells, size_t offset, size_t bytes, bool write, bool atomic, uint32_t pc,
                 uint32_t since, const Name& name) {
  while (bytes) {
    const size_t in_word = offset & 3, taken = std::min(bytes, 4 - in_word);
    const uint8_t mask = uint8_t(((1u << taken) - 1) << in_word);
    check_cell(cells[offset >> 2], write, atomic, mask, pc, since, [&] { return name(offset); });
    offset += taken;
    bytes -= taken;
  }
}

void check_shared(Shared& s, uintptr_t address, size_t bytes, bool write, bool atomic, uint32_t pc) {
  if (!s.touched_in_launch) {
    s.touched_in_launch = true;
    shared_bytes += s.end - s.begin;
    if (shared_bytes > kSharedLimit)
      abort_launch(
          format("a block uses %zu bytes of shared memory, more than %zu; the last variable is %s, used at ",
                 shared_bytes, kSharedLimit, s.name.c_str()) +
          place(pc));
  }
  s.touched_in_block = true;
  auto name = [&](size_t offset) { return format("shared %s, byte %zu", s.name.c_str(), offset); };
  const size_t offset = address - s.begin;
  if (address + bytes > s.end)
    abort_launch("access beyond the end of " + name(offset) + " of " + std::to_string(s.end - s.begin) +
                 " at " + place(pc) + " by " + who(current));
  if (!write || atomic)
    for (size_t word = offset >> 2; word <= (offset + bytes - 1) >> 2; ++word)
      if (s.cells[word].write.epoch < block_epoch) {
        add_error("nothing was written to " + name(4 * word) + ", before it was read at " + place(pc) +
                      " by " + who(current),
                  "unwritten" + place(pc));
        break;
      }
  check_cells(s.cells.data(), offset, bytes, write, atomic, pc, block_epoch, name);
}

void check_global(uintptr_t address, size_t bytes, bool write, bool atomic, uint32_t pc) {
  if (!(address >= cached_begin && address < cached_end)) {
    auto after = buffers.upper_bound(address);
    if (after == buffers.begin() || address >= std::prev(after)->second.end) {
      if (strict)
        abort_launch(format("%zu bytes %s outside every buffer at ", bytes, write ? "written" : "read") +
                     place(pc) + " by " + who(current) +
                     (after == buffers.begin() ? std::string()
                                               : format(", %zu bytes behind the end of %s",
                                                        size_t(address - std::prev(after)->second.end),
                                                        std::prev(after)->second.name.c_str())));
      return;
    }
    cached_begin = std::prev(after)->first;
    cached = &std::prev(after)->second;
    cached_end = cached->end;
  }
  Buffer& b = *cached;
  const uintptr_t begin = cached_begin;
  auto name = [&](size_t offset) {
    return format("%s, byte %zu of %zu", b.name.c_str(), size_t(offset), size_t(b.end - begin));
  };
  if (address + bytes > b.end)
    abort_launch(format("%zu bytes %s across the end of ", bytes, write ? "written" : "read") +
                 name(address - begin) + " at " + place(pc) + " by " + who(current));
  if (!b.cells) {  // committed by the kernel page by page, as it is used
    b.cell_bytes = ((b.end - begin + 3) / 4 + 1) * sizeof(Cell);
    b.cells = static_cast<Cell*>(mmap(nullptr, b.cell_bytes, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  }
  check_cells(b.cells, address - begin, bytes, write, atomic, pc, launch_epoch, name);
}

void check(const void* pointer, size_t bytes, bool write, bool volatile_access, uint32_t pc,
           size_t alignment) {
  const uintptr_t address = uintptr_t(pointer);
  if (address - uintptr_t(stacks) < kMaxThreads * kStackBytes) return;  // registers and local memory
  if (address - uintptr_t(&indices) < sizeof indices) return;           // threadIdx and its kin
  ++statistics.accesses;
  if (alignment && address % alignment)
    abort_launch(format("misaligned access: %zu bytes at address 0x%zx at ", bytes, size_t(address)) +
                 place(pc) + " by " + who(current));
  if (address >= variables_begin && address < variables_end) {
    const int index = variable_of_byte[address - variables_begin];
    if (index >= 0) return check_shared(shared[index], address, bytes, write, volatile_access, pc);
    if (index == kNoVariable)
      abort_launch(format("%zu bytes %s outside every shared variable at ", bytes, verb_of(write, false)) +
                   place(pc) + " by " + who(current));
    return;  // a __device__ variable, or a static one of the host
  }
  if (address >= image_begin && address < image_end && !write) return;  // tables of constants
  check_global(address, bytes, write, volatile_access, pc);
}

// ---- launching
// ------------------------------------------------------------------------------------------------------

template <class T>
void shuffle_order(std::vector<T>& items) {  // seed 0: as they are, 1: backwards, others: shuffled
  if (seed == 1) std::reverse(items.begin(), items.end());
  if (seed > 1) {
    std::mt19937_64 random(seed + statistics.launches);
    std::shuffle(items.begin(), items.end(), random);
  }
}

void prepare_block(uint64_t block) {
  blockIdx = {unsigned(block % gridDim.x), unsigned(block / gridDim.x % gridDim.y),
              unsigned(block / gridDim.x / gridDim.y)};
  block_epoch = ++epoch;
  block_fences.emplace_back(epoch, false);
  for (Shared& s : shared) {
    if (s.touched_in_block) memset(reinterpret_cast<void*>(s.begin), 0xFF, s.end - s.begin);  // NaN
    s.touched_in_block = false;
  }
  waiting_at_barrier = exited = 0;
  ready_head = ready_count = 0;
  memset(warp_epochs, 0, sizeof warp_epochs);
  for (int t : order) {
    prepare_fibre(t);
    ready[ready_count++] = t;
  }
  ++statistics.blocks;
  statistics.threads += num_threads;
}

void run_block() {
  const int first = ready[0];
  ready_head = 1 % num_threads;
  --ready_count;
  set_thread(first);
  in_kernel = true;
#ifdef __x86_64__
  gradiseg_shim_switch(&main_stack_pointer, fibres[first].stack_pointer);
#else
  swapcontext(&main_context, &fibres[first].context);
#endif
  in_kernel = false;
}

void prepare_launch(dim3 grid, dim3 block) {
  gridDim = grid;
  blockDim = block;
  num_threads = int(block.x * block.y * block.z);
  ready.resize(num_threads);
  order.resize(num_threads);
  for (int t = 0; t < num_threads; ++t) {
    order[t] = t;
    fibres[t].index = {t % block.x, t / block.x % block.y, t / block.x / block.y};
  }
  shuffle_order(order);
  shared_bytes = 0;
  for (Shared& s : shared) s.touched_in_launch = false;
  block_fences.clear();
  launch_epoch = ++epoch;
}

void find_image() {
  Dl_info info;
  dladdr(reinterpret_cast<void*>(&find_image), &info);
  image_begin = uintptr_t(info.dli_fbase);
}

}  // namespace

// ---- what the header declares
// ---------------------------------------------------------------------------------------

int barrier(Vote vote, int predicate, Site site) {
  Fibre& f = fibres[current];
  f.state = State::kBarrier;
  f.vote = vote;
  f.value = predicate != 0;
  f.site = site;
  if (++waiting_at_barrier == num_threads)
    finish_barrier();
  else
    switch_away(f);
  return int(f.result);
}

uint64_t warp(WarpOp op, unsigned mask, uint64_t value, int argument, int width, Site site) {
  Fibre& f = fibres[current];
  if (!(mask >> (current & 31) & 1))
    abort_launch(format("%s(0x%08x) at ", name_of(op), mask) + place(site) + " by " + who(current) +
                 ", which the mask does not name");
  f.state = State::kWarp;
  f.op = op;
  f.mask = mask;
  f.value = value;
  f.argument = argument;
  f.width = width;
  f.site = site;
  try_warp(current / 32);
  if (f.state == State::kWarp)
    switch_away(f);
  else if (f.state != State::kReady)
    to_main();
  return f.result;
}

void yield() {
  make_ready(current);
  switch_away(fibres[current]);
}

void fence() { block_fences.back().second = true; }

void atomic(const volatile void* address, size_t bytes, const void* pc) {
  if (in_kernel) check(const_cast<const void*>(address), bytes, true, true, pc_of(pc), bytes);
}

int launch(dim3 grid, dim3 block, size_t dynamic_shared, const Kernel& k) {
  if (failed) return cudaErrorLaunchFailure;  // sticky, as on the GPU
  const uint64_t threads = uint64_t(block.x) * block.y * block.z, blocks = uint64_t(grid.x) * grid.y * grid.z;
  if (threads == 0 || threads > kMaxThreads || block.z > 64 || blocks == 0 || grid.x > 0x7FFFFFFFu ||
      grid.y > 65535 || grid.z > 65535 || dynamic_shared != 0) {
    add_error(
        format(
            "invalid launch: grid (%u, %u, %u), block (%u, %u, %u), %zu bytes of dynamic shared memory (the "
            "shim has static only)",
            grid.x, grid.y, grid.z, block.x, block.y, block.z, dynamic_shared),
        "launch");
    return cudaErrorInvalidConfiguration;
  }
  if (!stacks)
    stacks = static_cast<char*>(mmap(nullptr, kMaxThreads * kStackBytes, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  kernel = &k;
  ++statistics.launches;
  prepare_launch(grid, block);
  if (seed == 0) {
    for (uint64_t b = 0; b < blocks && !failed; ++b) prepare_block(b), run_block();
  } else {
    std::vector<uint64_t> block_order(blocks);
    for (uint64_t b = 0; b < blocks; ++b) block_order[b] = b;
    shuffle_order(block_order);
    for (uint64_t b = 0; b < blocks && !failed; ++b) prepare_block(block_order[b]), run_block();
  }
  ++epoch;
  return failed ? cudaErrorLaunchFailure : cudaSuccess;
}

}  // namespace shim

// ---- the host's side
// ------------------------------------------------------------------------------------------------

namespace {
void forget(std::map<uintptr_t, shim::Buffer>::iterator buffer) {
  if (buffer->second.cells) munmap(buffer->second.cells, buffer->second.cell_bytes);
  shim::buffers.erase(buffer);
  shim::cached_end = shim::cached_begin;
}
}  // namespace

extern "C" {

// Kernels may touch [pointer, pointer + bytes); what overlaps it from before was freed.
void shim_register(void* pointer, size_t bytes, const char* name) {
  const uintptr_t begin = uintptr_t(pointer), end = begin + bytes;
  if (!bytes) return;
  auto it = shim::buffers.upper_bound(begin);
  if (it != shim::buffers.begin() && std::prev(it)->second.end > begin) --it;
  if (it != shim::buffers.end() && it->first == begin && it->second.end == end) {
    it->second.name = name;
    return;
  }
  while (it != shim::buffers.end() && it->first < end) forget(it++);
  shim::buffers[begin] = {end, nullptr, 0, name};
}

void shim_forget_buffers() {
  while (!shim::buffers.empty()) forget(shim::buffers.begin());
}

void shim_strict(int strict) { shim::strict = strict; }
void shim_order(uint64_t seed) { shim::seed = seed; }

// One line "kind offset size name" per variable of the kernels' sources (kind s: shared, v: another) and one,
// kind i, for this library's image.
void shim_symbols(const char* text) {
  using namespace shim;
  find_image();
  shared.clear();
  std::vector<std::pair<uintptr_t, uintptr_t>> others;
  variables_begin = ~uintptr_t{0};
  variables_end = 0;
  char kind, name[512];
  size_t offset, size;
  for (int length; sscanf(text, " %c %zx %zx %511[^\n]%n", &kind, &offset, &size, name, &length) == 4;
       text += length) {
    const uintptr_t begin = image_begin + offset, end = begin + size;
    if (kind == 'i') {
      image_end = end;
      continue;
    }
    if (kind == 's')
      shared.push_back({begin, end, name, std::vector<Cell>((size + 3) / 4 + 1), false, false});
    if (kind == 'v') others.emplace_back(begin, end);
    variables_begin = std::min(variables_begin, begin);
    variables_end = std::max(variables_end, end + 64);  // an overrun of the last one is seen, too
  }
  variable_of_byte.assign(variables_begin < variables_end ? variables_end - variables_begin : 0, kNoVariable);
  for (auto [begin, end] : others)
    std::fill_n(variable_of_byte.begin() + (begin - variables_begin), end - begin, kOtherVariable);
  for (size_t i = 0; i < shared.size(); ++i)
    std::fill_n(variable_of_byte.begin() + (shared[i].begin - variables_begin),
                shared[i].end - shared[i].begin, int(i));
}

const char* shim_error() {
  shim::report.clear();
  for (const std::string& error : shim::errors) shim::report += (shim::report.empty() ? "" : "\n") + error;
  return shim::report.c_str();
}

void shim_clear() {
  shim::errors.clear();
  shim::keys.clear();
  shim::failed = false;
}

void shim_statistics(uint64_t* out) { memcpy(out, &shim::statistics, sizeof shim::statistics); }

}  // extern "C"

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorLaunchFailure:
    case cudaErrorInvalidConfiguration:
      return shim_error();
    default:
      return "invalid argument";
  }
}
const char* cudaGetErrorName(cudaError_t error) {
  return error == cudaSuccess ? "cudaSuccess" : "cudaErrorLaunchFailure";
}
cudaError_t cudaPeekAtLastError() { return shim::failed ? cudaErrorLaunchFailure : cudaSuccess; }
cudaError_t cudaGetLastError() { return cudaPeekAtLastError(); }
cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  *pointer = aligned_alloc(256, (bytes + 511) / 256 * 256);
  if (!*pointer) return cudaErrorMemoryAllocation;
  shim_register(*pointer, bytes, "a cudaMalloc");
  return cudaSuccess;
}
cudaError_t cudaFree(void* pointer) {
  auto it = shim::buffers.find(uintptr_t(pointer));
  if (it != shim::buffers.end()) forget(it);
  free(pointer);
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {
      "CPU shim",        9, 0, 4, shim::kMaxThreads, 32, 1 << 20, size_t{1} << 30, shim::kSharedLimit,
      shim::kSharedLimit};
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount      ? 4
           : attribute == cudaDevAttrComputeCapabilityMajor ? 9
                                                            : 0;
  return cudaSuccess;
}

// ---- what -fsanitize=thread calls
// -----------------------------------------------------------------------------------

#define SHIM_PC shim::pc_of(__builtin_return_address(0))
#define SHIM_HOOK(name, bytes, write, is_volatile, alignment)                           \
  extern "C" void name(void* p) {                                                       \
    if (shim::in_kernel) shim::check(p, bytes, write, is_volatile, SHIM_PC, alignment); \
  }
#define SHIM_HOOKS(bytes)                                                 \
  SHIM_HOOK(__tsan_read##bytes, bytes, false, false, bytes)               \
  SHIM_HOOK(__tsan_write##bytes, bytes, true, false, bytes)               \
  SHIM_HOOK(__tsan_unaligned_read##bytes, bytes, false, false, 0)         \
  SHIM_HOOK(__tsan_unaligned_write##bytes, bytes, true, false, 0)         \
  SHIM_HOOK(__tsan_volatile_read##bytes, bytes, false, true, bytes)       \
  SHIM_HOOK(__tsan_volatile_write##bytes, bytes, true, true, bytes)       \
  SHIM_HOOK(__tsan_unaligned_volatile_read##bytes, bytes, false, true, 0) \
  SHIM_HOOK(__tsan_unaligned_volatile_write##bytes, bytes, true, true, 0)
SHIM_HOOKS(1)
SHIM_HOOKS(2)
SHIM_HOOKS(4)
SHIM_HOOKS(8)
SHIM_HOOKS(16)

extern "C" {
void __tsan_read_range(void* p, size_t bytes) {
  if (shim::in_kernel && bytes) shim::check(p, bytes, false, false, SHIM_PC, 0);
}
void __tsan_write_range(void* p, size_t bytes) {
  if (shim::in_kernel && bytes) shim::check(p, bytes, true, false, SHIM_PC, 0);
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}
