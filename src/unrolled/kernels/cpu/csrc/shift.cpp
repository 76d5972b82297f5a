// Mixtures of each input with the one before it, x + share * (before - x), for several shares at once, and their gradients.
//
// Bound by memory: x is read once for all shares. A thread has whole sequences, so that no sum depends on their number.
#include "lanes.h"
#include "threads.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(f) JOIN(f, INSTRUCTION_SET)

namespace {

// x (rows, steps, n); first (rows, n), the input before the window; shares (count, n); fresh (rows, steps), where nothing
// lies before, or null.
template <class T>
struct Given {
    int64_t rows, steps, n, count;
    const T *x, *first, *shares;
    const bool* fresh;

    // The row before step t, or null for zeros.
    const T* before(int64_t r, int64_t t) const {
        if (fresh && fresh[r * steps + t]) return nullptr;
        return t ? x + (r * steps + t - 1) * n : first + r * n;
    }
};

// mixed: addresses of count results (rows, steps, n).
template <class T>
void forward(const Given<T>& g, T* const* mixed, int64_t r) {
    typedef typename Simd<T>::Register V;
    for (int64_t t = 0; t < g.steps; ++t) {
        const int64_t at = (r * g.steps + t) * g.n;
        const T* before = g.before(r, t);
        columns_of<T>(0, g.n, [&](int64_t i, Lanes<T> lanes) {
            const V x = lanes.load(g.x + at + i), moved = before ? lanes.load(before + i) - x : -x;
            for (int64_t m = 0; m < g.count; ++m)
                lanes.store(mixed[m] + at + i, x + lanes.load(g.shares + m * g.n + i) * moved);
        });
    }
}

// grads: addresses of the gradients of the results, each (rows, steps, n) or null for zeros. grad_first is zero where
// nothing is written; sums (rows, count, n), zeros.
template <class T>
void backward(const Given<T>& g, const T* const* grads, T* grad_x, T* grad_first, T* sums, int64_t r) {
    typedef typename Simd<T>::Register V;
    for (int64_t t = g.steps - 1; t >= 0; --t) {
        const int64_t at = (r * g.steps + t) * g.n;
        const T* before = g.before(r, t);
        const bool handed = t + 1 < g.steps && !(g.fresh && g.fresh[r * g.steps + t + 1]);
        // what goes to the step before waits where that step's gradient will be
        T* to = t ? grad_x + at - g.n : grad_first + r * g.n;
        columns_of<T>(0, g.n, [&](int64_t i, Lanes<T> lanes) {
            const V x = lanes.load(g.x + at + i), moved = before ? lanes.load(before + i) - x : -x;
            V all = {}, shared = {};
            for (int64_t m = 0; m < g.count; ++m) {
                if (!grads[m]) continue;
                const V d = lanes.load(grads[m] + at + i);
                T* total = sums + (r * g.count + m) * g.n + i;
                all += d;
                shared += d * lanes.load(g.shares + m * g.n + i);
                lanes.store(total, lanes.load(total) + d * moved);
            }
            all -= shared;
            lanes.store(grad_x + at + i, handed ? all + lanes.load(grad_x + at + i) : all);
            if (before) lanes.store(to + i, shared);
        });
    }
}

}  // namespace

#define GIVEN(T)                                                                                                        \
    int64_t rows, int64_t steps, int64_t n, int64_t count, const T *x, const T *first, const T *shares, const bool *fresh
#define AS_GIVEN(T) \
    Given<T> { rows, steps, n, count, x, first, shares, fresh }

#define EXPORT(T, KIND)                                                                                                \
    extern "C" void NAME(shift_forward_##KIND)(GIVEN(T), T* const* mixed, int64_t threads) {                            \
        const auto g = AS_GIVEN(T);                                                                                     \
        in_parallel(threads, [=](int64_t i, int64_t of) {                                                               \
            for (int64_t r = rows * i / of; r < rows * (i + 1) / of; ++r) forward<T>(g, mixed, r);                      \
        });                                                                                                             \
    }                                                                                                                   \
    extern "C" void NAME(shift_backward_##KIND)(GIVEN(T), const T* const* grads, T* grad_x, T* grad_first, T* sums,      \
                                                int64_t threads) {                                                      \
        const auto g = AS_GIVEN(T);                                                                                     \
        in_parallel(threads, [=](int64_t i, int64_t of) {                                                               \
            for (int64_t r = rows * i / of; r < rows * (i + 1) / of; ++r)                                               \
                backward<T>(g, grads, grad_x, grad_first, sums, r);                                                     \
        });                                                                                                             \
    }
EXPORT(float, float)
EXPORT(double, double)
