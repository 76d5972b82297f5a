// Depthwise causal convolution, with an activation or without: one pass over time, and one back.
//
// Bound by memory: a row of time is read from memory once, and from the cache for the other taps that see it. Threads
// share the columns, so that no sum depends on their number.
#include "lanes.h"
#include "threads.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(f) JOIN(f, INSTRUCTION_SET)

namespace {

constexpr int64_t BLOCK = 256;  // columns that are taken through all of time at once: their taps stay in the first cache

// What both passes read: x (rows, steps, columns), any strides of rows and steps; weight (taps, columns), newest input
// first; bias (columns) or null; cache (rows, (taps - 1) * dilation, columns); reach (rows, steps), how far each step
// sees, or null.
template <class T>
struct Given {
    const T* x;
    int64_t x_row, x_step;
    const T *weight, *bias, *cache;
    const int64_t* reach;
    int64_t rows, steps, columns, taps, dilation, silu;

    int64_t lost() const { return (taps - 1) * dilation; }
    int64_t seen(int64_t r, int64_t t) const {
        if (!reach) return taps;
        const int64_t lags = reach[r * steps + t] / dilation + 1;
        return lags < taps ? lags : taps;
    }
    const T* input(int64_t r, int64_t t) const {
        return t < 0 ? cache + (r * lost() + lost() + t) * columns : x + r * x_row + t * x_step;
    }
};

template <class T>
inline typename Simd<T>::Register weighted(const Given<T>& g, int64_t r, int64_t t, int64_t seen, int64_t i, Lanes<T> lanes) {
    typename Simd<T>::Register total = {};
    if (g.bias) total = lanes.load(g.bias + i);
    for (int64_t l = 0; l < seen; ++l)
        total += lanes.load(g.weight + l * g.columns + i) * lanes.load(g.input(r, t - l * g.dilation) + i);
    return total;
}

// y: (rows, steps, columns).
template <class T>
void forward(const Given<T>& g, T* y, int64_t low, int64_t high) {
    typedef typename Simd<T>::Register V;
    for (int64_t r = 0; r < g.rows; ++r)
        for (int64_t t = 0; t < g.steps; ++t) {
            const int64_t seen = g.seen(r, t);
            T* out = y + (r * g.steps + t) * g.columns;
            columns_of<T>(low, high, [&](int64_t i, Lanes<T> lanes) {
                const V total = weighted(g, r, t, seen, i, lanes);
                lanes.store(out + i, g.silu ? total * logistic(total) : total);
            });
        }
}

// grad (rows, steps, columns), any strides of rows and steps. grad_x: as y. The rest zeros: grad_cache as the cache,
// sums (rows, taps + 1, columns) of each row by itself, that of the bias last.
template <class T>
void backward(const Given<T>& g, const T* grad, int64_t grad_row, int64_t grad_step, T* grad_x, T* grad_cache, T* sums,
              int64_t low, int64_t high) {
    typedef typename Simd<T>::Register V;
    const int64_t n = g.columns;
    for (int64_t r = 0; r < g.rows; ++r)
        for (int64_t t = 0; t < g.steps; ++t) {
            const int64_t seen = g.seen(r, t);
            const T* from = grad + r * grad_row + t * grad_step;
            T* total = sums + r * (g.taps + 1) * n;
            columns_of<T>(low, high, [&](int64_t i, Lanes<T> lanes) {
                V d = lanes.load(from + i);
                if (g.silu) {
                    const V u = weighted(g, r, t, seen, i, lanes), s = logistic(u);
                    d *= s * (1 + u * (1 - s));
                }
                T* of_bias = total + g.taps * n + i;
                lanes.store(of_bias, lanes.load(of_bias) + d);
                for (int64_t l = 0; l < seen; ++l) {
                    const int64_t at = t - l * g.dilation;
                    T* of_weight = total + l * n + i;
                    lanes.store(of_weight, lanes.load(of_weight) + d * lanes.load(g.input(r, at) + i));
                    T* to = i + (at < 0 ? grad_cache + (r * g.lost() + g.lost() + at) * n : grad_x + (r * g.steps + at) * n);
                    const V part = d * lanes.load(g.weight + l * n + i);
                    lanes.store(to, l ? lanes.load(to) + part : part);  // a step's own tap comes first
                }
            });
        }
}

template <class F>
void share(int64_t columns, int64_t threads, F part) {
    const auto edge = [=](int64_t i) { return i == threads ? columns : columns * i / threads / 16 * 16; };
    in_parallel(threads, [&](int64_t i, int64_t) {
        for (int64_t low = edge(i); low < edge(i + 1); low += BLOCK)
            part(low, low + BLOCK < edge(i + 1) ? low + BLOCK : edge(i + 1));
    });
}

}  // namespace

#define GIVEN(T)                                                                                                      \
    const T *x, int64_t x_row, int64_t x_step, const T *weight, const T *bias, const T *cache, const int64_t *reach,   \
        int64_t rows, int64_t steps, int64_t columns, int64_t taps, int64_t dilation, int64_t silu
#define AS_GIVEN(T) \
    Given<T> { x, x_row, x_step, weight, bias, cache, reach, rows, steps, columns, taps, dilation, silu }

#define EXPORT(T, KIND)                                                                                               \
    extern "C" void NAME(conv_forward_##KIND)(GIVEN(T), T * y, int64_t threads) {                                      \
        const auto g = AS_GIVEN(T);                                                                                    \
        share(columns, threads, [=](int64_t low, int64_t high) { forward<T>(g, y, low, high); });                      \
    }                                                                                                                  \
    extern "C" void NAME(conv_backward_##KIND)(GIVEN(T), const T* grad, int64_t grad_row, int64_t grad_step,            \
                                               T* grad_x, T* grad_cache, T* sums, int64_t threads) {                   \
        const auto g = AS_GIVEN(T);                                                                                    \
        share(columns, threads, [=](int64_t low, int64_t high) {                                                       \
            backward<T>(g, grad, grad_row, grad_step, grad_x, grad_cache, sums, low, high);                            \
        });                                                                                                            \
    }
EXPORT(float, float)
EXPORT(double, double)
