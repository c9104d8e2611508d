#include "scheduler.h"

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "../runtime.h"
#include "fiber.h"
#include "gathering.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

#ifdef __x86_64__
// Saves the registers that a call preserves on the stack that is left and takes them from the one that is entered.
asm(R"(
.text
.globl costate_switch_stack
.hidden costate_switch_stack
.type costate_switch_stack,@function
costate_switch_stack:
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
.size costate_switch_stack, . - costate_switch_stack
)");
#endif

namespace costate::cuda::emulator {

unsigned block_number = 0;

namespace {

constexpr std::size_t shared_limit = 227 << 10, static_limit = 48 << 10, gap = 64;  // bytes; sm_90's and CUDA's

enum class State : std::uint8_t { unused, ready, at_barrier, at_warp, done };

struct Fiber {
  Stack stack;
  State state = State::unused;
  unsigned thread = 0;
  uint3 index{};
  Place place;
  std::vector<Copy> deferred;
  std::size_t done = 0;  // of the deferred ones
};

enum class Sequence { forward, reverse, shuffled };

struct Machine {
  std::mutex mutex;
  std::vector<Fiber> fibers;
  std::vector<Fiber*> of_thread;
  std::vector<Gathering> gatherings;  // a warp has one for each lowest lane of a mask
  std::vector<unsigned> exited;       // lanes of every warp that have returned
  std::vector<unsigned> sequence;     // of the threads
  Fiber host;
  Fiber* running = nullptr;
  void (*body)(void*) = nullptr;
  void* arguments = nullptr;
  std::string name, failure;
  unsigned threads = 0, started = 0, used = 0, live = 0, waiting = 0, barriers = 0, rotation = 0, copies = 0;
  Sequence order = Sequence::forward;
  std::byte* shared = nullptr;
  std::size_t shared_top = shared_limit, static_bytes = 0;  // at first all of it is to be poisoned
  std::vector<std::pair<std::byte*, std::size_t>> arrays;
  Order at_start, at_end, at_barrier[2];
};
Machine& machine() {
  static Machine& m = *new Machine;
  return m;
}

void go(Fiber* to) {
  Machine& m = machine();
  Fiber* const from = m.running;
  if (to == from) return;
  m.running = to;
  if (to != &m.host) threadIdx = to->index;
  from->stack.leave_for(to->stack, from->state == State::done);
}

void describe(const char* what, const Place* place) {
  Machine& m = machine();
  const auto number = [](unsigned n) { return std::to_string(n); };
  m.failure = "emulated kernel " + m.name + ": " + what + " (block " + number(blockIdx.x) + ", " + number(blockIdx.y) + ", " +
              number(blockIdx.z) + ", thread " + number(m.running->thread);
  if (place) m.failure += std::string(", ") + place->file + ":" + number(place->line);
  m.failure += ")";
  int named = 0;
  for (const Fiber& f : m.fibers)
    if ((f.state == State::at_barrier || f.state == State::at_warp) && named++ < 4)
      m.failure += "; thread " + number(f.thread) + " waits at line " + number(f.place.line);
}

}  // namespace

void stop(const char* what, const Place* place) {
  Machine& m = machine();
  describe(what, place);
  m.running->state = State::done;
  go(&m.host);
  std::abort();  // not reached: nobody enters a fiber that is done
}

namespace {

void give_thread(Fiber& f, unsigned thread) {
  f.thread = thread;
  f.deferred.clear(), f.done = 0;
  f.index = {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / (blockDim.x * blockDim.y)};
  machine().of_thread[thread] = &f;
}

void fiber_main();

// A fiber for the next thread that has not started; null when all have.
Fiber* fresh() {
  Machine& m = machine();
  if (m.started >= m.threads) return nullptr;
  Fiber& f = m.fibers[(m.used++ + m.rotation) % m.fibers.size()];
  f.stack.start(&fiber_main);
  give_thread(f, m.sequence[m.started++]);
  f.state = State::ready;
  return &f;
}

void fiber_main() {
  Machine& m = machine();
#ifdef COSTATE_EMULATED_ASAN
  const void* bytes;
  std::size_t length;
  __sanitizer_finish_switch_fiber(nullptr, &bytes, &length);
  if (!m.host.stack.bytes) m.host.stack.bytes = static_cast<std::byte*>(const_cast<void*>(bytes)), m.host.stack.length = length;
#endif
  for (;;) {
    m.at_start.acquire();
    m.body(m.arguments);
    m.at_end.release();
    --m.live;
    m.exited[m.running->thread / warp_size] |= 1u << (m.running->thread % warp_size);
    if (m.waiting) stop("a thread returned while others wait at __syncthreads");
#ifndef COSTATE_EMULATED_TSAN
    // A fiber that never waited takes the next thread, at the price of a loop; the sanitizer tells threads apart by fiber.
    if (m.started < m.threads) {
      give_thread(*m.running, m.sequence[m.started++]);
      threadIdx = m.running->index;
      continue;
    }
#endif
    break;
  }
  m.running->state = State::done;
  if (Fiber* next = fresh()) go(next);
  for (Fiber& f : m.fibers)
    if (f.state == State::ready) go(&f);
  if (m.live) stop("no thread can go on: barriers or masks do not match");
  go(&m.host);
  std::abort();  // not reached
}

// Runs others until the running thread is ready again.
void wait(State state, const Place& place) {
  Machine& m = machine();
  Fiber* const self = m.running;
  self->state = state;
  while (self->state != State::ready) {
    Fiber* next = fresh();
    const std::size_t n = m.fibers.size(), at = static_cast<std::size_t>(self - m.fibers.data());
    // In the reverse order a warp goes on alone as far as it gets, in the others all go on together: where a barrier is
    // missing, it overwrites what others have not read.
    for (std::size_t k = at / warp_size * warp_size; m.order == Sequence::reverse && k < n && k <= (at | (warp_size - 1)); ++k)
      if (!next && m.fibers[k].state == State::ready) next = &m.fibers[k];
    for (std::size_t k = 1; k < n && !next; ++k) {
      Fiber& f = m.fibers[m.order == Sequence::reverse ? (at + n - k) % n : (at + k) % n];
      if (f.state == State::ready) next = &f;
    }
    if (!next) stop("no thread can go on: barriers or masks do not match", &place);
    go(next);
  }
}

bool same(const Place& a, const Place& b) { return a.line == b.line && std::strcmp(a.file, b.file) == 0; }

void meet_warp(unsigned mask, const Part& part, const Place& place) {
  Machine& m = machine();
  const unsigned warp = m.running->thread / warp_size, bit = m.running->thread % warp_size,
                 lanes = std::min(warp_size, m.threads - warp * warp_size);
  if (lanes < warp_size) mask &= (1u << lanes) - 1;
  if (!(mask >> bit & 1)) stop("a lane calls with a mask that does not name it", &place);
  if (mask & m.exited[warp]) stop("a mask names a lane that has returned", &place);
  Gathering& g = m.gatherings[warp * warp_size + static_cast<unsigned>(__builtin_ctz(mask))];
  if (!g.arrived)
    g.mask = mask, g.place = place, g.bytes = part.bytes, g.together = part.together;
  else if (g.mask != mask)
    stop("lanes of a warp disagree on the mask", &place);
  else if (!same(g.place, place) || g.bytes != part.bytes || g.together != part.together)
    stop("lanes of a warp meet at different operations", &place);
  copy_bytes(part.in, g.value[bit], part.bytes);
  g.out[bit] = part.out, g.source[bit] = part.source, g.arrived |= 1u << bit;
  m.running->place = place;
  Order& order = g.order[g.count & 1];
  order.release();
  if (g.arrived == mask) {  // the last one hands out all results
    ++g.count, g.arrived = 0;
    order.acquire();
    hand_out(g);
    order.release();
    for (unsigned others = mask & ~(1u << bit); others; others &= others - 1)
      m.of_thread[warp * warp_size + static_cast<unsigned>(__builtin_ctz(others))]->state = State::ready;
  } else {
    wait(State::at_warp, place);
  }
  order.acquire();
}

// A new block's shared memory: every byte 0xff, so that floats are NaN. Not by memset, which sanitizers watch.
void poison_shared(std::size_t bytes) {
  Machine& m = machine();
#ifdef COSTATE_EMULATED_TSAN
  mmap(m.shared, shared_limit, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
#endif
  volatile std::uint64_t* p = reinterpret_cast<volatile std::uint64_t*>(m.shared);
  for (std::size_t i = 0; i < (bytes + 7) / 8; ++i) p[i] = ~std::uint64_t{0};
}

void begin_block(std::size_t dynamic_bytes) {
  Machine& m = machine();
#ifdef COSTATE_EMULATED_TSAN
  poison_shared(shared_limit);
#else
  poison_shared(std::min(shared_limit, m.shared_top));  // what the block before may have written
#endif
  ++block_number;
  m.arrays.clear(), m.static_bytes = 0;
  m.shared_top = dynamic_bytes ? (dynamic_bytes + gap + 15) / 16 * 16 : 0;
  m.started = m.used = m.waiting = 0, m.live = m.threads;
  m.exited.assign((m.threads + warp_size - 1) / warp_size, 0);
  for (Fiber& f : m.fibers) f.state = State::unused;
  for (Gathering& g : m.gatherings) g.arrived = 0;
#ifdef COSTATE_EMULATED_TSAN
  m.rotation += 37;  // threads of different blocks are different fibers: their races show
#endif
}

void check_ends(std::size_t dynamic_bytes) {
  Machine& m = machine();
  const auto intact = [](const std::byte* p, std::size_t n) {
    return std::all_of(p + n, p + n + gap - 16, [](std::byte b) { return b == std::byte{0xff}; });
  };
  for (const auto& [p, n] : m.arrays)
    if (!intact(p, n))
      m.failure = "emulated kernel " + m.name + ": wrote past the end of a shared array of " + std::to_string(n) + " bytes";
  if (dynamic_bytes && !intact(m.shared, (dynamic_bytes + 15) / 16 * 16))
    m.failure = "emulated kernel " + m.name + ": wrote past the end of its dynamic shared memory";
}

Sequence chosen_sequence() {
  const char* s = std::getenv("COSTATE_EMULATED_ORDER");
  const std::string order = s && *s ? s : "forward";
  if (order == "forward") return Sequence::forward;
  if (order == "reverse") return Sequence::reverse;
  if (order == "shuffled") return Sequence::shuffled;
  fail(Fault::argument, "COSTATE_EMULATED_ORDER is '" + order + "'; expected forward, reverse or shuffled");
}

}  // namespace

int lane() { return static_cast<int>(machine().running->thread % warp_size); }

void wait_for_block(const Place& place) {
  Machine& m = machine();
  m.running->place = place;
  Order& order = m.at_barrier[m.barriers & 1];
  order.release();
  if (++m.waiting == m.threads) {
    for (Fiber& f : m.fibers) {
      if (f.state != State::at_barrier) continue;
      if (!same(f.place, place)) stop("threads of a block meet at different __syncthreads", &place);
      f.state = State::ready;
    }
    m.waiting = 0, ++m.barriers;
  } else {
    if (m.live != m.threads) stop("__syncthreads after some threads have returned", &place);
    wait(State::at_barrier, place);
  }
  order.acquire();
}

void wait_for_warp(unsigned mask, const Place& place) { meet_warp(mask, {}, place); }

void exchange_bytes(unsigned mask, const void* in, void* out, std::size_t bytes, int source, const Place& place) {
  if (bytes > shuffled_bytes) stop("a shuffle of more than 16 bytes", &place);
  meet_warp(mask, {in, bytes, out, source}, place);
}

void combine_bytes(const void* in, std::size_t bytes, void* out, Together together, const Place& place) {
  if (bytes > most_bytes) stop("more than 48 bytes a lane", &place);
  const Machine& m = machine();
  if (m.threads < (m.running->thread / warp_size + 1) * warp_size)
    stop("an operation of a whole warp in one that is not whole", &place);
  meet_warp(~0u, {in, bytes, out, 0, together}, place);
}

void* take_shared(std::size_t bytes) {
  Machine& m = machine();
  m.shared_top = (m.shared_top + 15) / 16 * 16;
  if (m.static_bytes + bytes > static_limit) stop("more than 48 KiB of static shared memory");
  if (m.shared_top + bytes + gap > shared_limit) stop("more than 227 KiB of shared memory");
  std::byte* p = m.shared + m.shared_top;
  m.shared_top += bytes + gap, m.static_bytes += bytes;
  m.arrays.emplace_back(p, bytes);
  return p;
}
void* dynamic_shared() { return machine().shared; }
bool defer(const Copy& copy) {
  Machine& m = machine();
  if (m.order == Sequence::reverse || (m.order == Sequence::shuffled && (++m.copies & 1))) return false;
  m.running->deferred.push_back(copy);
  return true;
}
bool next_deferred(Copy& copy) {
  Fiber& f = *machine().running;
  if (f.done == f.deferred.size()) {
    f.deferred.clear(), f.done = 0;
    return false;
  }
  copy = f.deferred[f.done++];
  return true;
}
bool is_shared(const void* p, std::size_t bytes) {
  const Machine& m = machine();
  const auto* b = static_cast<const std::byte*>(p);
  return std::less_equal<>{}(m.shared, b) && std::less_equal<>{}(b + bytes, m.shared + shared_limit);
}

void run(void (*body)(void*), void* arguments, dim3 grid, dim3 block, std::size_t dynamic_bytes, const char* name) {
  Machine& m = machine();
  const std::lock_guard lock(m.mutex);
  m.name = name, m.failure.clear(), m.body = body, m.arguments = arguments;
  m.threads = block.x * block.y * block.z;
  if (m.threads == 0 || m.threads > 1024 || block.z > 64 || !grid.x || !grid.y || !grid.z || grid.x > 0x7fffffffu ||
      grid.y > 65535 || grid.z > 65535 || dynamic_bytes > shared_limit)
    fail(Fault::runtime, "emulated kernel " + m.name + ": no device launches this grid, block or amount of shared memory");
  m.order = chosen_sequence();
  blockDim = block, gridDim = grid;
  if (m.fibers.size() < m.threads) m.fibers.resize(m.threads);
  m.of_thread.resize(m.threads);
  m.gatherings.resize(warp_size * ((m.threads + warp_size - 1) / warp_size));
  m.sequence.resize(m.threads);
  for (unsigned i = 0; i < m.threads; ++i) m.sequence[i] = m.order == Sequence::reverse ? m.threads - 1 - i : i;
  if (!m.shared)
    m.shared =
        static_cast<std::byte*>(mmap(nullptr, shared_limit + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
#ifdef COSTATE_EMULATED_TSAN
  m.host.stack.tsan = __tsan_get_current_fiber();
  for (Fiber& f : m.fibers)
    if (!f.stack.tsan) f.stack.tsan = __tsan_create_fiber(0);
#endif
  std::mt19937 random(1);
  const std::uint64_t blocks = std::uint64_t{grid.x} * grid.y * grid.z;
  std::vector<std::uint64_t> shuffled(m.order == Sequence::shuffled ? blocks : 0);
  for (std::uint64_t b = 0; b < shuffled.size(); ++b) shuffled[b] = b;
  std::shuffle(shuffled.begin(), shuffled.end(), random);
  for (std::uint64_t b = 0; b < blocks && m.failure.empty(); ++b) {
    const std::uint64_t i = m.order == Sequence::reverse ? blocks - 1 - b : shuffled.empty() ? b : shuffled[b];
    blockIdx = {static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
                static_cast<unsigned>(i / (std::uint64_t{grid.x} * grid.y))};
    if (m.order == Sequence::shuffled) std::shuffle(m.sequence.begin(), m.sequence.end(), random);
    begin_block(dynamic_bytes);
    m.at_start.release();
    m.running = &m.host, m.host.state = State::ready;
    go(fresh());
    if (m.failure.empty()) check_ends(dynamic_bytes);
  }
  m.at_end.acquire();
  if (!m.failure.empty()) fail(Fault::runtime, m.failure);
}

}  // namespace costate::cuda::emulator
