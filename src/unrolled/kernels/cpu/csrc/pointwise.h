// Pointwise operations on one row: d[i] = (acc[i] +) f(a[i], b[i]). acc may be absent, and d may be a, b or acc.
#pragma once
#include "simd.h"

namespace {

// Numbers as in cell_loop/native/graph.py, which names them.
enum Code : int64_t {
    LINEAR, COPY, ADD, SUB, MUL, AFFINE, SIGMOID, TANH, RELU, MIN, D_SIGMOID, D_TANH, D_RELU, D_MIN, SELECT, FILL
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
        case FILL: each(d, a, a, acc, n, [=](V, V) { return Simd<T>::all(shift); }); break;
    }
}

}  // namespace
