// Root-mean-square norm of rows, with a weight, and its gradients: everything is read once and written once.
#include "pointwise.h"
#include "threads.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(f) JOIN(f, INSTRUCTION_SET)

namespace {

constexpr int64_t GROUP = 64;  // rows whose gradients of the weight are summed by themselves, whatever the threads

template <class T>
void rms_forward(int64_t rows, int64_t n, const T* x, const T* weight, T epsilon, T* y, int64_t threads) {
    typedef typename Simd<T>::Register V;
    in_parallel(threads, [=](int64_t i, int64_t of) {
        for (int64_t r = rows * i / of; r < rows * (i + 1) / of; ++r) {
            const Scale<T> s(x + r * n, n, false, epsilon);
            each<T>(y + r * n, x + r * n, weight, nullptr, n, [=](V v, V w) { return v * s.factor * w; });
        }
    });
}

// sums: (groups of rows, n), zeros.
template <class T>
void rms_backward(int64_t rows, int64_t n, const T* x, const T* weight, T epsilon, const T* grad, T* grad_x, T* sums,
                  int64_t threads) {
    typedef typename Simd<T>::Register V;
    const int64_t groups = (rows + GROUP - 1) / GROUP;
    in_parallel(threads, [=](int64_t i, int64_t of) {
        for (int64_t group = groups * i / of; group < groups * (i + 1) / of; ++group)
            for (int64_t r = group * GROUP; r < rows && r < (group + 1) * GROUP; ++r) {
                const T *a = x + r * n, *g = grad + r * n;
                T *to = grad_x + r * n, *total = sums + group * n;
                const Scale<T> s(a, n, false, epsilon);
                each<T>(total, g, a, total, n, [=](V u, V v) { return u * v * s.factor; });
                each<T>(to, g, weight, nullptr, n, [](V u, V w) { return u * w; });
                const T along = sum(to, a, n, [](V u, V v) { return u * v; }) * s.factor * s.factor / T(n);
                each<T>(to, to, a, nullptr, n, [=](V u, V v) { return s.factor * (u - v * along); });
            }
    });
}

}  // namespace

#define EXPORT(T, KIND)                                                                                                 \
    extern "C" void NAME(rms_forward_##KIND)(int64_t rows, int64_t n, const T* x, const T* weight, double epsilon, T* y, \
                                             int64_t threads) {                                                         \
        rms_forward<T>(rows, n, x, weight, T(epsilon), y, threads);                                                     \
    }                                                                                                                   \
    extern "C" void NAME(rms_backward_##KIND)(int64_t rows, int64_t n, const T* x, const T* weight, double epsilon,     \
                                              const T* grad, T* grad_x, T* sums, int64_t threads) {                     \
        rms_backward<T>(rows, n, x, weight, T(epsilon), grad, grad_x, sums, threads);                                   \
    }
EXPORT(float, float)
EXPORT(double, double)
