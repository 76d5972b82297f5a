// Operations on one row: d[i] = (acc[i] +) f(a[i], b[i]), and norms. acc may be absent, and d may be a, b or acc.
#pragma once
#include "simd.h"

namespace {

// Numbers as in cell_loop/native/graph.py, which names them.
enum Code : int64_t {
    LINEAR, COPY, ADD, SUB, MUL, AFFINE, SIGMOID, TANH, RELU, MIN, D_SIGMOID, D_TANH, D_RELU, D_MIN, SELECT, FILL, NORM, RMS,
    D_NORM, D_RMS, EXP, RECIPROCAL, LOG_SIGMOID
};

template <class T, class F>
inline void each(T* d, const T* a, const T* b, const T* acc, int64_t n, F f) {
    typedef Simd<T> S;
    int64_t i = 0;
    if (acc) {
        for (; i + S::lanes <= n; i += S::lanes) S::store(d + i, S::load(acc + i) + f(S::load(a + i), S::load(b + i)));
    } else {
        for (; i + S::lanes <= n; i += S::lanes) S::store(d + i, f(S::load(a + i), S::load(b + i)));
    }
    if (const int left = int(n - i)) {
        typename S::Register y = f(S::load(a + i, left), S::load(b + i, left));
        if (acc) y += S::load(acc + i, left);
        S::store(d + i, y, left);
    }
}

// The sum over a row of f(a[i], b[i]), which is 0 for zeros.
template <class T, class F>
inline T sum(const T* a, const T* b, int64_t n, F f) {
    typedef Simd<T> S;
    typename S::Register total = {};
    int64_t i = 0;
    for (; i + S::lanes <= n; i += S::lanes) total += f(S::load(a + i), S::load(b + i));
    if (const int left = int(n - i)) {
        typename S::Register last = f(S::load(a + i, left), S::load(b + i, left));
        for (int l = 0; l < left; ++l) total[l] += last[l];
    }
    T y = 0;
    for (int l = 0; l < S::lanes; ++l) y += total[l];
    return y;
}

// Minus the mean of a row (0 for a root mean square), and one over the root of its mean square then.
template <class T>
struct Scale {
    T shift, factor;
    Scale(const T* x, int64_t n, bool centred, T epsilon) {
        typedef typename Simd<T>::Register V;
        shift = centred ? -sum(x, x, n, [](V v, V) { return v; }) / T(n) : T(0);
        const V by = Simd<T>::all(shift);
        factor = 1 / std::sqrt(sum(x, x, n, [=](V v, V) { return (V)((v + by) * (v + by)); }) / T(n) + epsilon);
    }
};

// (x - mean) / root mean square of that, with the mean taken as 0 for RMS.
template <class T>
void normalise(T* d, const T* x, const T* acc, int64_t n, bool centred, T epsilon) {
    typedef typename Simd<T>::Register V;
    const Scale<T> s(x, n, centred, epsilon);
    each(d, x, x, acc, n, [=](V v, V) { return (v + s.shift) * s.factor; });
}

// The gradient g of the result y = (x + shift) factor, passed on to x: factor (g - mean(g) - y mean(g y)).
template <class T>
void normalise_back(T* d, const T* g, const T* x, const T* acc, int64_t n, bool centred, T epsilon) {
    typedef typename Simd<T>::Register V;
    const Scale<T> s(x, n, centred, epsilon);
    const T mean = centred ? sum(g, g, n, [](V v, V) { return v; }) / T(n) : T(0);
    const T along = sum(g, x, n, [=](V v, V w) { return v * (w + s.shift) * s.factor; }) / T(n);
    each(d, g, x, acc, n, [=](V v, V w) { return s.factor * (v - mean - (w + s.shift) * s.factor * along); });
}

template <class T>
void pointwise(int64_t code, T* d, const T* a, const T* b, const T* acc, int64_t n, T scale, T shift) {
    typedef typename Simd<T>::Register V;
    if (!a) a = d;  // nothing of it is used
    if (!b) b = a;
    switch (code) {
        case COPY: each(d, a, a, acc, n, [](V x, V) { return x; }); break;
        case ADD: each(d, a, b, acc, n, [](V x, V y) { return x + y; }); break;
        case SUB: each(d, a, b, acc, n, [](V x, V y) { return x - y; }); break;
        case MUL: each(d, a, b, acc, n, [](V x, V y) { return x * y; }); break;
        case AFFINE: each(d, a, a, acc, n, [=](V x, V) { return x * scale + shift; }); break;
        case SIGMOID: each(d, a, a, acc, n, [](V x, V) { return logistic(x); }); break;
        case TANH: each(d, a, a, acc, n, [](V x, V) { return hyperbolic(x); }); break;
        case RELU: each(d, a, a, acc, n, [](V x, V) { return (V)(x < 0 ? V{} : x); }); break;
        case MIN: each(d, a, b, acc, n, [](V x, V y) { return (V)(x < y || x != x ? x : y); }); break;
        // a is the gradient of the result, b the result
        case D_SIGMOID: each(d, a, b, acc, n, [](V g, V y) { return g * (y - y * y); }); break;
        case D_TANH: each(d, a, b, acc, n, [](V g, V y) { return g - g * (y * y); }); break;
        case D_RELU: each(d, a, b, acc, n, [](V g, V y) { return (V)(y > 0 ? g : V{}); }); break;
        // the share of a minimum's gradient that its first argument has, by the sign of the difference b
        case D_MIN: each(d, a, b, acc, n, [](V g, V x) { return (V)(x < 0 ? g : x > 0 ? V{} : g * T(0.5)); }); break;
        case SELECT:  // b is one number for the row
            if (*b != T(0)) each(d, a, a, acc, n, [](V x, V) { return x; });
            else each(d, a, a, acc, n, [](V, V) { return V{}; });
            break;
        case NORM: normalise(d, a, acc, n, true, shift); break;
        case RMS: normalise(d, a, acc, n, false, shift); break;
        // a is the gradient of the result, b what was normalised
        case D_NORM: normalise_back(d, a, b, acc, n, true, shift); break;
        case D_RMS: normalise_back(d, a, b, acc, n, false, shift); break;
        case EXP: each(d, a, a, acc, n, [](V x, V) { return whole_exponential(x); }); break;
        case RECIPROCAL: each(d, a, a, acc, n, [](V x, V) { return 1 / x; }); break;
        case LOG_SIGMOID: each(d, a, a, acc, n, [](V x, V) { return log_logistic(x); }); break;
        case FILL: each(d, a, a, acc, n, [=](V, V) { return Simd<T>::all(shift); }); break;
    }
}

}  // namespace
