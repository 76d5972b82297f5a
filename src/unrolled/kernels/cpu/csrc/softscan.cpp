// Decayed, max-stabilised weighted mean, elementwise: m(t) = max(m(t-1) + l, s(t)), u(t) and w(t) are sums of weights
// and of weighted values in units of e^m, y = w / u; with a bonus y is that of the state before, with weight
// e^(bonus + s) for the present value. One pass over time, and one back.
//
// Vectors go along the columns. Compiled once for each instruction set, as program.cpp.
#include <algorithm>

#include "simd.h"
#include "threads.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(f) JOIN(f, INSTRUCTION_SET)

namespace {

constexpr double EMPTY = -1e30;  // m where nothing was seen, as in softmax_scan/reference.py

// A (rows, steps, columns) array with columns side by side.
template <class T>
struct Array {
    T* at;
    int64_t row, step;
    T* of(int64_t r, int64_t t) const { return at ? at + r * row + t * step : nullptr; }
};

// decay: (..., columns), at null where nothing decays. bonus: (columns) or null. m0, u0, w0: (rows, columns).
// y, m, u, w: (rows, steps, columns).
template <class T>
struct Given {
    int64_t rows, steps, columns;
    Array<const T> s, v, decay;
    const T *bonus, *m0, *u0, *w0;
    const unsigned char* reset;
    T *y, *m, *u, *w;
};

// grad_m, grad_u, grad_w: of the last state, and then of the first, (rows, columns). grad_decay: of every step, or
// (rows, columns) sums, zeros, where its stride of a step is 0; grad_bonus: (rows, columns), zeros. Both may be absent.
template <class T>
struct Gradients {
    Array<const T> y;
    Array<T> s, v, decay;
    T *bonus, *m, *u, *w;
};

template <class T>
struct Block {
    typedef Simd<T> S;
    typedef typename S::Register V;
    int64_t low;
    int count;
    V load(const T* row) const {
        if (!row) return V{};
        return count == S::lanes ? S::load(row + low) : S::load(row + low, count);
    }
    void store(T* row, V v) const {
        if (count == S::lanes) S::store(row + low, v);
        else S::store(row + low, v, count);
    }
};

inline Floats power(Floats x) { return exponential(clamp(x, 87.f)); }
inline Doubles power(Doubles x) { return exponential(x); }

template <class V>
inline V larger(V a, V b) {
    return a > b ? a : b;
}

template <class T>
void forward(const Given<T>& g, int64_t r, Block<T> block) {
    typedef typename Simd<T>::Register V;
    const int64_t C = g.columns;
    V m = block.load(g.m0 + r * C), u = block.load(g.u0 + r * C), w = block.load(g.w0 + r * C);
    const V bonus = block.load(g.bonus);
    for (int64_t t = 0; t < g.steps; ++t) {
        if (g.reset && g.reset[r * g.steps + t]) m = Simd<T>::all(T(EMPTY)), u = V{}, w = V{};
        const V s = block.load(g.s.of(r, t)), v = block.load(g.v.of(r, t)), kept = m + block.load(g.decay.of(r, t));
        const int64_t at = (r * g.steps + t) * C;
        if (g.bonus) {
            const V now = bonus + s, top = larger(m, now), a = power(m - top), p = power(now - top);
            block.store(g.y + at, (a * w + p * v) / (a * u + p));
        }
        m = larger(kept, s);
        const V a = power(kept - m), p = power(s - m);
        u = a * u + p;
        w = a * w + p * v;
        if (!g.bonus) block.store(g.y + at, w / u);
        block.store(g.m + at, m);
        block.store(g.u + at, u);
        block.store(g.w + at, w);
    }
}

template <class T>
void backward(const Given<T>& g, const Gradients<T>& to, int64_t r, Block<T> block) {
    typedef typename Simd<T>::Register V;
    const int64_t C = g.columns;
    const V none = {}, half = Simd<T>::all(T(0.5)), one = Simd<T>::all(T(1));
    V of_m = block.load(to.m + r * C), of_u = block.load(to.u + r * C), of_w = block.load(to.w + r * C);
    const V bonus = block.load(g.bonus);
    V of_bonus = {}, of_decay = {};
    const bool summed = to.decay.step == 0;
    for (int64_t t = g.steps - 1; t >= 0; --t) {
        const int64_t at = (r * g.steps + t) * C;
        const bool fresh = g.reset && g.reset[r * g.steps + t];
        const auto before = [&](const T* states, const T* start, T empty) {
            return fresh ? Simd<T>::all(empty) : block.load(t ? states + at - C : start + r * C);
        };
        const V m = before(g.m, g.m0, T(EMPTY)), u = before(g.u, g.u0, 0), w = before(g.w, g.w0, 0);
        const V s = block.load(g.s.of(r, t)), v = block.load(g.v.of(r, t)), kept = m + block.load(g.decay.of(r, t));
        const V y = block.load(g.y + at), of_y = block.load(to.y.of(r, t)), high = block.load(g.m + at);
        V of_s = {}, of_v = {}, m_before = {}, u_before = {}, w_before = {};
        if (g.bonus) {  // y is the same whatever is taken as the largest
            const V now = bonus + s, top = larger(m, now), a = power(m - top), p = power(now - top);
            const V share = of_y / (a * u + p), of_now = share * p * (v - y);
            of_v = share * p;
            of_s = of_now;
            of_bonus += of_now;
            w_before = share * a;
            u_before = -y * w_before;
            m_before = w_before * (w - y * u);
        } else {
            const V share = of_y / block.load(g.u + at);
            of_w += share;
            of_u -= share * y;
        }
        const V a = power(kept - high), p = power(s - high);
        const V of_kept = (of_w * w + of_u * u) * a, of_new = (of_w * v + of_u) * p;
        const V to_s = s > kept ? one : s == kept ? half : none;
        of_m -= of_kept + of_new;
        const V along = of_kept + of_m * (one - to_s);
        block.store(to.s.of(r, t), of_s + of_new + of_m * to_s);
        block.store(to.v.of(r, t), of_v + of_w * p);
        if (to.decay.at) {
            of_decay = summed ? of_decay + along : along;
            block.store(to.decay.of(r, t), of_decay);
        }
        of_m = fresh ? none : m_before + along;
        of_u = fresh ? none : u_before + of_u * a;
        of_w = fresh ? none : w_before + of_w * a;
    }
    block.store(to.m + r * C, of_m);
    block.store(to.u + r * C, of_u);
    block.store(to.w + r * C, of_w);
    if (to.bonus) block.store(to.bonus + r * C, of_bonus);
}

// part(row, block) for all blocks of columns of all rows, shared by the threads.
template <class T, class F>
void share(int64_t rows, int64_t columns, int64_t threads, F part) {
    constexpr int64_t lanes = Simd<T>::lanes;
    const int64_t blocks = (columns + lanes - 1) / lanes, tasks = rows * blocks;
    in_parallel(std::min(threads, tasks), [=](int64_t i, int64_t of) {
        for (int64_t k = tasks * i / of; k < tasks * (i + 1) / of; ++k) {
            const int64_t low = k % blocks * lanes;
            part(k / blocks, Block<T>{low, int(std::min(lanes, columns - low))});
        }
    });
}

}  // namespace

#define EXPORT(T, KIND)                                                                                                \
    extern "C" void NAME(softscan_forward_##KIND)(                                                                     \
        int64_t rows, int64_t steps, int64_t columns, const T* s, int64_t s_row, int64_t s_step, const T* v,            \
        int64_t v_row, int64_t v_step, const T* decay, int64_t decay_row, int64_t decay_step, const T* bonus,           \
        const T* m0, const T* u0, const T* w0, const unsigned char* reset, T* y, T* m, T* u, T* w, int64_t threads) {  \
        const Given<T> g = {rows,  steps, columns, {s, s_row, s_step}, {v, v_row, v_step}, {decay, decay_row, decay_step}, \
                            bonus, m0,    u0,      w0,                 reset,              y, m, u, w};                \
        share<T>(rows, columns, threads, [=](int64_t r, Block<T> block) { forward(g, r, block); });                    \
    }                                                                                                                  \
    extern "C" void NAME(softscan_backward_##KIND)(                                                                    \
        int64_t rows, int64_t steps, int64_t columns, const T* s, int64_t s_row, int64_t s_step, const T* v,            \
        int64_t v_row, int64_t v_step, const T* decay, int64_t decay_row, int64_t decay_step, const T* bonus,           \
        const T* m0, const T* u0, const T* w0, const unsigned char* reset, T* y, T* m, T* u, T* w, const T* grad,       \
        int64_t grad_row, int64_t grad_step, T* grad_s, T* grad_v, T* grad_decay, int64_t to_row, int64_t to_step,      \
        T* grad_bonus, T* grad_m, T* grad_u, T* grad_w, int64_t threads) {                                             \
        const Given<T> g = {rows,  steps, columns, {s, s_row, s_step}, {v, v_row, v_step}, {decay, decay_row, decay_step}, \
                            bonus, m0,    u0,      w0,                 reset,              y, m, u, w};                \
        const int64_t row = steps * columns;                                                                           \
        const Gradients<T> to = {{grad, grad_row, grad_step},   {grad_s, row, columns}, {grad_v, row, columns},         \
                                 {grad_decay, to_row, to_step}, grad_bonus,             grad_m, grad_u, grad_w};       \
        share<T>(rows, columns, threads, [=](int64_t r, Block<T> block) { backward(g, to, r, block); });               \
    }
EXPORT(float, float)
EXPORT(double, double)
