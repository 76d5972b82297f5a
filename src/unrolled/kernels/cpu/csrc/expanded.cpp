// h(t) = a(t) h(t-1) + b(t) on (columns, states), y(t) = sum over the states of C(t) h(t), with a and b made on the way:
// zoh: a = exp(delta A), b = delta u B; implicit: a = 1 - delta k^2, b = delta u k. What is (steps, columns, states)
// is never stored: of the states each CHUNK-th is kept, and the pass back makes the others again.
//
// Vectors go along the columns. Compiled once for each instruction set, as program.cpp.
#include <algorithm>

#include "simd.h"
#include "threads.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(f) JOIN(f, INSTRUCTION_SET)

namespace {

constexpr int64_t CHUNK = 16;   // steps from one kept state to the next
constexpr int64_t GROUP = 256;  // columns whose gradients of B and C are summed by themselves, whatever the threads

// A (rows, steps, columns) array with columns side by side.
template <class T>
struct Array {
    T* at;
    int64_t row, step;
    T* of(int64_t r, int64_t t) const { return at + r * row + t * step; }
};

// A: (states, columns) in mode zoh, else null. b, c: (rows, steps, states), where b is k in mode implicit.
// start: (rows, states, columns). kept: (rows, chunks, states, columns).
template <class T>
struct Given {
    int64_t rows, steps, columns, states;
    Array<const T> u, delta;
    const T *A, *b, *c, *start;
    const unsigned char* reset;
    T* kept;
    int64_t chunks() const { return (steps + CHUNK - 1) / CHUNK; }
};

// A block of columns, as many as a vector has lanes or fewer.
template <class T>
struct Block {
    typedef Simd<T> S;
    typedef typename S::Register V;
    int64_t low;
    int count;
    V load(const T* row) const { return count == S::lanes ? S::load(row + low) : S::load(row + low, count); }
    void store(T* row, V v) const {
        if (count == S::lanes) S::store(row + low, v);
        else S::store(row + low, v, count);
    }
};

inline Floats power(Floats x) { return exponential(clamp(x, 87.f)); }
inline Doubles power(Doubles x) { return exponential(x); }

template <bool ZOH, class V, class T>
inline V factor(V delta, V A, T k) {
    if constexpr (ZOH) return power(delta * A);
    else return T(1) - delta * (k * k);
}

template <class T, bool ZOH>
void forward(const Given<T>& g, int64_t r, Block<T> block, Array<T> y, T* last) {
    typedef Simd<T> S;
    typedef typename S::Register V;
    const int64_t N = g.states, plane = N * g.columns;
    std::vector<T> memory(2 * N * S::lanes);
    T *h = memory.data(), *A = h + N * S::lanes;
    for (int64_t n = 0; n < N; ++n) {
        S::store(h + n * S::lanes, block.load(g.start + r * plane + n * g.columns));
        if (ZOH) S::store(A + n * S::lanes, block.load(g.A + n * g.columns));
    }
    for (int64_t t = 0; t < g.steps; ++t) {
        if (g.kept && t % CHUNK == 0)
            for (int64_t n = 0; n < N; ++n)
                block.store(g.kept + ((r * g.chunks() + t / CHUNK) * N + n) * g.columns, S::load(h + n * S::lanes));
        if (g.reset && g.reset[r * g.steps + t]) std::fill(h, h + N * S::lanes, T(0));
        const V delta = block.load(g.delta.of(r, t)), du = delta * block.load(g.u.of(r, t));
        const T *b = g.b + (r * g.steps + t) * N, *c = g.c + (r * g.steps + t) * N;
        V total = {};
        for (int64_t n = 0; n < N; ++n) {
            const V a = factor<ZOH>(delta, S::load(A + n * S::lanes), b[n]);
            const V v = a * S::load(h + n * S::lanes) + du * b[n];
            S::store(h + n * S::lanes, v);
            total += v * c[n];
        }
        block.store(y.of(r, t), total);
    }
    for (int64_t n = 0; n < N; ++n) block.store(last + r * plane + n * g.columns, S::load(h + n * S::lanes));
}

// grad_A: (rows, states, columns), zeros; null in mode implicit. grad_b, grad_c: (groups, rows, steps, states).
// grad_last, grad_start: (rows, states, columns); grad_last may be absent.
template <class T>
struct Gradients {
    Array<const T> y;
    const T* last;
    Array<T> u, delta;
    T *A, *b, *c, *start;
};

// One chunk of one block. states, factors: room for those of the chunk, after its first state. lambda: what reaches the
// state after the chunk, and then the state before it. sum_b, sum_c: (steps of the chunk, states) vectors.
template <class T, bool ZOH>
void chunk_back(const Given<T>& g, const Gradients<T>& to, int64_t r, int64_t first, int64_t end, Block<T> block,
                T* states, T* factors, T* A, T* grad_A, T* lambda, T* sum_b, T* sum_c) {
    typedef Simd<T> S;
    typedef typename S::Register V;
    const int64_t N = g.states, wide = N * S::lanes;
    for (int64_t n = 0; n < N; ++n) {
        const int64_t at = n * S::lanes;
        S::store(states + at, block.load(g.kept + ((r * g.chunks() + first / CHUNK) * N + n) * g.columns));
        if (ZOH) S::store(A + at, block.load(g.A + n * g.columns));
        if (ZOH) S::store(grad_A + at, block.load(to.A + (r * N + n) * g.columns));
    }
    for (int64_t t = first; t < end; ++t) {
        T *h = states + (t - first) * wide, *a = factors + (t - first) * wide;
        const bool fresh = g.reset && g.reset[r * g.steps + t];
        const V delta = block.load(g.delta.of(r, t)), du = delta * block.load(g.u.of(r, t));
        const T* b = g.b + (r * g.steps + t) * N;
        for (int64_t n = 0; n < N; ++n) {
            const int64_t at = n * S::lanes;
            const V v = factor<ZOH>(delta, S::load(A + at), b[n]);
            S::store(a + at, v);
            S::store(h + wide + at, v * (fresh ? V{} : S::load(h + at)) + du * b[n]);
        }
    }
    for (int64_t t = end - 1; t >= first; --t) {
        const T *h = states + (t - first) * wide, *a = factors + (t - first) * wide;
        T *to_b = sum_b + (t - first) * wide, *to_c = sum_c + (t - first) * wide;
        const bool fresh = g.reset && g.reset[r * g.steps + t];
        const V delta = block.load(g.delta.of(r, t)), u = block.load(g.u.of(r, t)), du = delta * u;
        const V y = block.load(to.y.of(r, t));
        const T *b = g.b + (r * g.steps + t) * N, *c = g.c + (r * g.steps + t) * N;
        V along_b = {}, along_a = {};  // what reaches delta u, and delta by way of a
        for (int64_t n = 0; n < N; ++n) {
            const int64_t at = n * S::lanes;
            const V v = S::load(lambda + at) + y * c[n], a_n = S::load(a + at);
            const V before = fresh ? V{} : S::load(h + at);
            V of_b = v * du;
            along_b += v * b[n];
            if constexpr (ZOH) {
                const V of_exponent = v * before * a_n;
                along_a += of_exponent * S::load(A + at);
                S::store(grad_A + at, S::load(grad_A + at) + of_exponent * delta);
            } else {
                const V of_a = v * before * b[n];
                along_a -= of_a * b[n];
                of_b -= of_a * delta * T(2);
            }
            S::store(to_b + at, S::load(to_b + at) + of_b);
            S::store(to_c + at, S::load(to_c + at) + y * S::load(h + wide + at));
            S::store(lambda + at, fresh ? V{} : v * a_n);
        }
        block.store(to.u.of(r, t), along_b * delta);
        block.store(to.delta.of(r, t), along_b * u + along_a);
    }
    if (ZOH)
        for (int64_t n = 0; n < N; ++n) block.store(to.A + (r * N + n) * g.columns, S::load(grad_A + n * S::lanes));
}

template <class T, bool ZOH>
void backward(const Given<T>& g, const Gradients<T>& to, int64_t r, int64_t group) {
    typedef Simd<T> S;
    const int64_t N = g.states, wide = N * S::lanes, plane = N * g.columns;
    const int64_t low = group * GROUP, high = std::min(low + GROUP, g.columns);
    const int64_t blocks = (high - low + S::lanes - 1) / S::lanes;
    std::vector<T> memory((4 * CHUNK + 3 + blocks) * wide);
    T* states = memory.data();
    T *factors = states + (CHUNK + 1) * wide, *A = factors + CHUNK * wide, *grad_A = A + wide;
    T *sum_b = grad_A + wide, *sum_c = sum_b + CHUNK * wide, *lambda = sum_c + CHUNK * wide;
    const auto block_at = [=](int64_t k) {
        const int64_t from = low + k * S::lanes;
        return Block<T>{from, int(std::min<int64_t>(S::lanes, high - from))};
    };
    for (int64_t k = 0; k < blocks; ++k)
        for (int64_t n = 0; to.last && n < N; ++n)
            S::store(lambda + k * wide + n * S::lanes, block_at(k).load(to.last + r * plane + n * g.columns));
    for (int64_t chunk = g.chunks() - 1; chunk >= 0; --chunk) {
        const int64_t first = chunk * CHUNK, end = std::min(first + CHUNK, g.steps);
        std::fill(sum_b, sum_b + 2 * CHUNK * wide, T(0));
        for (int64_t k = 0; k < blocks; ++k)
            chunk_back<T, ZOH>(g, to, r, first, end, block_at(k), states, factors, A, grad_A, lambda + k * wide, sum_b,
                               sum_c);
        for (int64_t t = first; t < end; ++t)
            for (int64_t n = 0; n < N; ++n) {
                T b = 0, c = 0;
                for (int l = 0; l < S::lanes; ++l) {
                    b += sum_b[((t - first) * N + n) * S::lanes + l];
                    c += sum_c[((t - first) * N + n) * S::lanes + l];
                }
                const int64_t at = ((group * g.rows + r) * g.steps + t) * N + n;
                to.b[at] = b, to.c[at] = c;
            }
    }
    for (int64_t k = 0; k < blocks; ++k)
        for (int64_t n = 0; n < N; ++n)
            block_at(k).store(to.start + r * plane + n * g.columns, S::load(lambda + k * wide + n * S::lanes));
}

// part(row, group) for all groups of columns of all rows, shared by the threads.
template <class F>
void share(int64_t rows, int64_t columns, int64_t threads, F part) {
    const int64_t groups = (columns + GROUP - 1) / GROUP, tasks = rows * groups;
    in_parallel(std::min(threads, tasks), [=](int64_t i, int64_t of) {
        for (int64_t k = tasks * i / of; k < tasks * (i + 1) / of; ++k) part(k / groups, k % groups);
    });
}

template <class T, bool ZOH>
void all_forward(Given<T> g, Array<T> y, T* last, int64_t threads) {
    share(g.rows, g.columns, threads, [=](int64_t r, int64_t group) {
        const int64_t high = std::min((group + 1) * GROUP, g.columns);
        for (int64_t low = group * GROUP; low < high; low += Simd<T>::lanes)
            forward<T, ZOH>(g, r, {low, int(std::min<int64_t>(Simd<T>::lanes, high - low))}, y, last);
    });
}

template <class T, bool ZOH>
void all_backward(Given<T> g, Gradients<T> to, int64_t threads) {
    share(g.rows, g.columns, threads, [=](int64_t r, int64_t group) { backward<T, ZOH>(g, to, r, group); });
}

}  // namespace

// A null: mode implicit. u, delta and the arrays of their shape have the strides row, step.
#define EXPORT(T, KIND)                                                                                                \
    extern "C" void NAME(expanded_forward_##KIND)(                                                                     \
        int64_t rows, int64_t steps, int64_t columns, int64_t states, const T* u, int64_t u_row, int64_t u_step,        \
        const T* delta, int64_t delta_row, int64_t delta_step, const T* A, const T* b, const T* c, const T* start,      \
        const unsigned char* reset, T* kept, T* y, int64_t y_row, int64_t y_step, T* last, int64_t threads) {          \
        const Given<T> g = {rows, steps, columns, states, {u, u_row, u_step}, {delta, delta_row, delta_step},           \
                            A,    b,     c,       start,  reset,              kept};                                   \
        if (A) all_forward<T, true>(g, {y, y_row, y_step}, last, threads);                                             \
        else all_forward<T, false>(g, {y, y_row, y_step}, last, threads);                                              \
    }                                                                                                                  \
    extern "C" void NAME(expanded_backward_##KIND)(                                                                    \
        int64_t rows, int64_t steps, int64_t columns, int64_t states, const T* u, int64_t u_row, int64_t u_step,        \
        const T* delta, int64_t delta_row, int64_t delta_step, const T* A, const T* b, const T* c, const T* start,      \
        const unsigned char* reset, T* kept, const T* y, int64_t y_row, int64_t y_step, const T* last, T* grad_u,       \
        T* grad_delta, int64_t to_row, int64_t to_step, T* grad_A, T* grad_b, T* grad_c, T* grad_start,                \
        int64_t threads) {                                                                                             \
        const Given<T> g = {rows, steps, columns, states, {u, u_row, u_step}, {delta, delta_row, delta_step},           \
                            A,    b,     c,       start,  reset,              kept};                                   \
        const Gradients<T> to = {{y, y_row, y_step}, last,   {grad_u, to_row, to_step}, {grad_delta, to_row, to_step},  \
                                 grad_A,             grad_b, grad_c,                    grad_start};                   \
        if (A) all_backward<T, true>(g, to, threads);                                                                  \
        else all_backward<T, false>(g, to, threads);                                                                   \
    }
EXPORT(float, float)
EXPORT(double, double)
