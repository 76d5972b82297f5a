// What a layer's output is made of, (y + skip * u) * z / (1 + e^-z), and its gradients: everything is read once.
#include "lanes.h"
#include "threads.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(f) JOIN(f, INSTRUCTION_SET)

namespace {

constexpr int64_t GROUP = 64;  // rows whose gradients of the skip are summed by themselves, whatever the threads

// y (rows, n); z and u with strides of their rows; skip (n,) and u may both be absent.
template <class T>
void gate_forward(int64_t rows, int64_t n, const T* y, const T* z, int64_t z_row, const T* skip, const T* u, int64_t u_row,
                  T* out, int64_t threads) {
    typedef typename Simd<T>::Register V;
    in_parallel(threads, [=](int64_t part, int64_t of) {
        for (int64_t r = rows * part / of; r < rows * (part + 1) / of; ++r)
            columns_of<T>(0, n, [&](int64_t i, Lanes<T> lanes) {
                const V v = lanes.load(z + r * z_row + i);
                V inner = lanes.load(y + r * n + i);
                if (skip) inner += lanes.load(skip + i) * lanes.load(u + r * u_row + i);
                lanes.store(out + r * n + i, inner * v * logistic(v));
            });
    });
}

// sums: (groups of rows, n), zeros; the gradients lie row after row.
template <class T>
void gate_backward(int64_t rows, int64_t n, const T* y, const T* z, int64_t z_row, const T* skip, const T* u,
                   int64_t u_row, const T* grad, T* grad_y, T* grad_z, T* grad_u, T* sums, int64_t threads) {
    typedef typename Simd<T>::Register V;
    const int64_t groups = (rows + GROUP - 1) / GROUP;
    in_parallel(threads, [=](int64_t part, int64_t of) {
        for (int64_t group = groups * part / of; group < groups * (part + 1) / of; ++group)
            for (int64_t r = group * GROUP; r < rows && r < (group + 1) * GROUP; ++r)
                columns_of<T>(0, n, [&](int64_t i, Lanes<T> lanes) {
                    const V v = lanes.load(z + r * z_row + i), s = logistic(v), d = lanes.load(grad + r * n + i);
                    const V into = d * v * s;
                    V inner = lanes.load(y + r * n + i);
                    if (skip) {
                        const V w = lanes.load(skip + i), x = lanes.load(u + r * u_row + i);
                        T* total = sums + group * n + i;
                        inner += w * x;
                        lanes.store(grad_u + r * n + i, into * w);
                        lanes.store(total, lanes.load(total) + into * x);
                    }
                    lanes.store(grad_y + r * n + i, into);
                    lanes.store(grad_z + r * n + i, d * inner * s * (1 + v * (1 - s)));
                });
    });
}

}  // namespace

#define GIVEN(T) \
    int64_t rows, int64_t n, const T *y, const T *z, int64_t z_row, const T *skip, const T *u, int64_t u_row
#define AS_GIVEN rows, n, y, z, z_row, skip, u, u_row

#define EXPORT(T, KIND)                                                                                                \
    extern "C" void NAME(gate_forward_##KIND)(GIVEN(T), T * out, int64_t threads) {                                     \
        gate_forward<T>(AS_GIVEN, out, threads);                                                                        \
    }                                                                                                                   \
    extern "C" void NAME(gate_backward_##KIND)(GIVEN(T), const T* grad, T* grad_y, T* grad_z, T* grad_u, T* sums,        \
                                               int64_t threads) {                                                       \
        gate_backward<T>(AS_GIVEN, grad, grad_y, grad_z, grad_u, sums, threads);                                        \
    }
EXPORT(float, float)
EXPORT(double, double)
