// h(t) = a(t) h(t-1) + b(t) elementwise: one pass over time, and one back.
//
// Both are bound by memory: everything is read once and written once. Threads share the columns. Compiled once for each
// instruction set, as program.cpp.
#include "threads.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(f) JOIN(f, INSTRUCTION_SET)

namespace {

// A (steps, rows, columns) array: columns side by side, strides of a step and of a row in numbers.
template <class T>
struct Array {
    T* at;
    int64_t step, row;
    T* of(int64_t t, int64_t r) const { return at + t * step + r * row; }
};

template <class T>
void forward(Array<const T> a, Array<const T> b, const T* start, Array<const T> initial, const unsigned char* reset,
             T* h, int64_t steps, int64_t rows, int64_t columns, int64_t low, int64_t high) {
    for (int64_t t = 0; t < steps; ++t)
        for (int64_t r = 0; r < rows; ++r) {
            const T* last = reset && reset[t * rows + r] ? initial.of(0, r)
                            : t                          ? h + ((t - 1) * rows + r) * columns
                                                         : start + r * columns;
            const T *x = a.of(t, r), *y = b.of(t, r);
            T* out = h + (t * rows + r) * columns;
#pragma GCC ivdep
            for (int64_t i = low; i < high; ++i) out[i] = x[i] * last[i] + y[i];
        }
}

// grad_b(t) = grad(t) + a(t+1) grad_b(t+1), grad_a(t) = grad_b(t) h(t-1); grad_a and grad_initial may be absent.
template <class T>
void backward(Array<const T> a, const T* h, const T* start, Array<const T> initial, const unsigned char* reset,
              Array<const T> grad, T* grad_a, T* grad_b, T* grad_start, T* grad_initial, int64_t steps, int64_t rows,
              int64_t columns, int64_t low, int64_t high) {
    for (int64_t t = steps - 1; t >= 0; --t)
        for (int64_t r = 0; r < rows; ++r) {
            const int64_t here = (t * rows + r) * columns;
            const bool fresh = reset && reset[t * rows + r];
            const bool cut = t + 1 == steps || (reset && reset[(t + 1) * rows + r]);
            const T *g = grad.of(t, r), *later = grad_b + here + rows * columns, *x = a.of(t, r);
            T* out = grad_b + here;
            if (cut) {
#pragma GCC ivdep
                for (int64_t i = low; i < high; ++i) out[i] = g[i];
            } else {
                const T* factor = a.of(t + 1, r);
#pragma GCC ivdep
                for (int64_t i = low; i < high; ++i) out[i] = g[i] + factor[i] * later[i];
            }
            if (grad_a) {
                const T* last = fresh ? initial.of(0, r) : t ? h + here - rows * columns : start + r * columns;
                T* to = grad_a + here;
#pragma GCC ivdep
                for (int64_t i = low; i < high; ++i) to[i] = out[i] * last[i];
            }
            if (fresh && grad_initial) {
                T* to = grad_initial + r * columns;
#pragma GCC ivdep
                for (int64_t i = low; i < high; ++i) to[i] += x[i] * out[i];
            }
            if (!t && !fresh) {
                T* to = grad_start + r * columns;
#pragma GCC ivdep
                for (int64_t i = low; i < high; ++i) to[i] = x[i] * out[i];
            }
        }
}

template <class F>
void share(int64_t columns, int64_t threads, F part) {
    const auto edge = [=](int64_t i) { return i == threads ? columns : columns * i / threads / 16 * 16; };
    in_parallel(threads, [&](int64_t i, int64_t) { part(edge(i), edge(i + 1)); });
}

}  // namespace

#define EXPORT(T, KIND)                                                                                                \
    extern "C" void NAME(scan_forward_##KIND)(const T* a, int64_t a_step, int64_t a_row, const T* b, int64_t b_step,    \
                                              int64_t b_row, const T* start, const T* initial, int64_t initial_row,     \
                                              const unsigned char* reset, T* h, int64_t steps, int64_t rows,            \
                                              int64_t columns, int64_t threads) {                                      \
        share(columns, threads, [=](int64_t low, int64_t high) {                                                       \
            forward<T>({a, a_step, a_row}, {b, b_step, b_row}, start, {initial, 0, initial_row}, reset, h, steps,       \
                       rows, columns, low, high);                                                                      \
        });                                                                                                            \
    }                                                                                                                  \
    extern "C" void NAME(scan_backward_##KIND)(                                                                        \
        const T* a, int64_t a_step, int64_t a_row, const T* h, const T* start, const T* initial, int64_t initial_row,   \
        const unsigned char* reset, const T* grad, int64_t grad_step, int64_t grad_row, T* grad_a, T* grad_b,           \
        T* grad_start, T* grad_initial, int64_t steps, int64_t rows, int64_t columns, int64_t threads) {               \
        share(columns, threads, [=](int64_t low, int64_t high) {                                                       \
            backward<T>({a, a_step, a_row}, h, start, {initial, 0, initial_row}, reset, {grad, grad_step, grad_row},    \
                        grad_a, grad_b, grad_start, grad_initial, steps, rows, columns, low, high);                    \
        });                                                                                                            \
    }
EXPORT(float, float)
EXPORT(double, double)
