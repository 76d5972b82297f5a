// The pointwise part of a level of a trellis, blocks i, o, g, f, and its gradients: everything is read once.
#include "lanes.h"
#include "threads.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(f) JOIN(f, INSTRUCTION_SET)

namespace {

// gates (rows, 4 n): the products, or, where they are not ready, nothing yet; what is injected is added and the gates are
// left there. before: c d steps back, or absent, which is zero.
template <class T>
void levels_forward(int64_t rows, int64_t n, const T* injected, int64_t ready, const T* before, T* gates, T* cell, T* out,
                    int64_t threads) {
    typedef typename Simd<T>::Register V;
    in_parallel(threads, [=](int64_t part, int64_t of) {
        for (int64_t r = rows * part / of; r < rows * (part + 1) / of; ++r) {
            const T* add = injected + 4 * r * n;
            T* own = gates + 4 * r * n;
            columns_of<T>(0, n, [&](int64_t j, Lanes<T> lanes) {
                V pre[4];
                for (int k = 0; k < 4; ++k) {
                    pre[k] = lanes.load(add + k * n + j);
                    if (ready) pre[k] += lanes.load(own + k * n + j);
                }
                const V i = logistic(pre[0]), o = logistic(pre[1]), g = hyperbolic(pre[2]), f = logistic(pre[3]);
                V c = i * g;
                if (before) c += f * lanes.load(before + r * n + j);
                lanes.store(own + j, i);
                lanes.store(own + n + j, o);
                lanes.store(own + 2 * n + j, g);
                lanes.store(own + 3 * n + j, f);
                lanes.store(cell + r * n + j, c);
                lanes.store(out + r * n + j, o * hyperbolic(c));
            });
        }
    });
}

// d_pre (rows, 4 n) is written, and added to total, or written there too at the first level; d_before is of c d steps back.
template <class T>
void levels_backward(int64_t rows, int64_t n, const T* gates, const T* cell, const T* before, const T* d_out,
                     const T* d_cell, int64_t first, T* d_pre, T* total, T* d_before, int64_t threads) {
    typedef typename Simd<T>::Register V;
    in_parallel(threads, [=](int64_t part, int64_t of) {
        for (int64_t r = rows * part / of; r < rows * (part + 1) / of; ++r) {
            const T* own = gates + 4 * r * n;
            T* to = d_pre + 4 * r * n;
            T* sum = total + 4 * r * n;
            columns_of<T>(0, n, [&](int64_t j, Lanes<T> lanes) {
                const V i = lanes.load(own + j), o = lanes.load(own + n + j), g = lanes.load(own + 2 * n + j);
                const V f = lanes.load(own + 3 * n + j), t = hyperbolic(lanes.load(cell + r * n + j));
                const V dh = lanes.load(d_out + r * n + j), dc = lanes.load(d_cell + r * n + j) + dh * o * (1 - t * t);
                V d[4] = {dc * g * i * (1 - i), dh * t * o * (1 - o), dc * i * (1 - g * g), V{}};
                if (before) d[3] = dc * lanes.load(before + r * n + j) * f * (1 - f);
                for (int k = 0; k < 4; ++k) {
                    lanes.store(to + k * n + j, d[k]);
                    if (!first) d[k] += lanes.load(sum + k * n + j);
                    lanes.store(sum + k * n + j, d[k]);
                }
                lanes.store(d_before + r * n + j, dc * f);
            });
        }
    });
}

}  // namespace

#define EXPORT(T, KIND)                                                                                                 \
    extern "C" void NAME(levels_forward_##KIND)(int64_t rows, int64_t n, const T* injected, int64_t ready,               \
                                                const T* before, T* gates, T* cell, T* out, int64_t threads) {           \
        levels_forward<T>(rows, n, injected, ready, before, gates, cell, out, threads);                                  \
    }                                                                                                                    \
    extern "C" void NAME(levels_backward_##KIND)(int64_t rows, int64_t n, const T* gates, const T* cell,                 \
                                                 const T* before, const T* d_out, const T* d_cell, int64_t first,        \
                                                 T* d_pre, T* total, T* d_before, int64_t threads) {                     \
        levels_backward<T>(rows, n, gates, cell, before, d_out, d_cell, first, d_pre, total, d_before, threads);         \
    }
EXPORT(float, float)
EXPORT(double, double)
