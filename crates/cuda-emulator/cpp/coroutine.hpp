// A stack of its own for each thread of an emulated block, and how to go from one to another.
//
// The C library's swapcontext asks the kernel for the signal mask at each switch, which is most of what emulated threads that
// meet at barriers would cost. Kernels mask no signals: on x86-64 a switch here keeps the registers that a function has to
// keep, and nothing else.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace emulator {

// Where a coroutine, or the one that started it, goes on.
class Coroutine {
  public:
    static constexpr size_t STACK_BYTES = 64 << 10;
    using Entry = void (*)();

    Coroutine() = default;
    Coroutine(const Coroutine &) = delete;
    Coroutine &operator=(const Coroutine &) = delete;
    ~Coroutine() {
        if (stack) spare().push_back(std::move(stack));
    }

    // Begins with `entry`, which never returns, at the next switch to this one.
    void start(Entry entry);
    // Leaves `from`, which goes on behind this call when something switches to it.
    static void change(Coroutine &from, Coroutine &to);

  private:
    std::unique_ptr<char[]> stack;
#ifdef __x86_64__
    void *saved = nullptr;
#else
    ucontext_t saved;
#endif

    // Stacks of blocks before: what they have touched need not be found again.
    static std::vector<std::unique_ptr<char[]>> &spare() {
        static thread_local std::vector<std::unique_ptr<char[]>> all;
        return all;
    }

    void take_stack() {
        if (stack) return;
        if (spare().empty()) {
            stack.reset(new char[STACK_BYTES]);
        } else {
            stack = std::move(spare().back());
            spare().pop_back();
        }
    }
};

#ifdef __x86_64__

// Keeps the stack pointer, with what a callee keeps above it, in `*from`, and goes on at `to`.
extern "C" void emulator_change_stack(void **from, void *to) __attribute__((visibility("hidden")));

inline void Coroutine::start(Entry entry) {
    take_stack();
    // From the top: a return address that nobody uses, which also makes the stack as a call leaves it; where to begin; and six
    // registers.
    auto top = (reinterpret_cast<uintptr_t>(stack.get()) + STACK_BYTES) & ~static_cast<uintptr_t>(15);
    auto *words = reinterpret_cast<void **>(top);
    *--words = nullptr;
    *--words = reinterpret_cast<void *>(entry);
    for (int i = 0; i < 6; i++) *--words = nullptr;
    saved = words;
}

inline void Coroutine::change(Coroutine &from, Coroutine &to) { emulator_change_stack(&from.saved, to.saved); }

#else

inline void Coroutine::start(Entry entry) {
    take_stack();
    getcontext(&saved);
    saved.uc_stack.ss_sp = stack.get();
    saved.uc_stack.ss_size = STACK_BYTES;
    saved.uc_link = nullptr;
    makecontext(&saved, entry, 0);
}

inline void Coroutine::change(Coroutine &from, Coroutine &to) { swapcontext(&from.saved, &to.saved); }

#endif

}  // namespace emulator
