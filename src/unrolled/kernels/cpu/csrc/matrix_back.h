// The gradients of matrix.h. The rows of S, as it lies turned here, are independent: a few go back over a group of steps in
// near memory. S is kept before each group and made again from there.
#pragma once
#include "matrix.h"

namespace {

constexpr int64_t ROWS = 4;  // turned rows that go back together

// What one group of steps needs, each a row of `wide` keys a step, and the sums of its gradients. states[t] is S after
// step t - 1.
template <class T>
struct Group {
    int64_t wide;
    std::vector<T> memory;
    T *q, *k, *a, *b, *decay, *grad_q, *grad_k, *grad_a, *grad_b, *grad_decay, *none, *states;
    explicit Group(int64_t wide) : wide(wide), memory(size_t((10 * GROUP + (GROUP + 2) * ROWS) * wide)) {
        T* at = memory.data();
        for (T** one : {&q, &k, &a, &b, &decay, &grad_q, &grad_k, &grad_a, &grad_b, &grad_decay}) *one = at, at += GROUP * wide;
        none = at, states = at + ROWS * wide;
    }
    void clear() { std::fill(grad_q, grad_q + 5 * GROUP * wide, T(0)); }
    const T* before(int64_t t, const unsigned char* reset) const {
        return reset && reset[t] ? none : states + t * ROWS * wide;
    }
};

// Numbers of the turned rows at each step of a group.
template <class T>
struct Turned {
    T v[GROUP][ROWS], out[GROUP][ROWS], z[GROUP][ROWS], decay[GROUP][ROWS], to_v[GROUP][ROWS], to_decay[GROUP][ROWS];
};

// S over the group's steps, from states[0].
template <class T, Form FORM>
void again(Group<T>& g, const Turned<T>& at, const unsigned char* reset, int64_t steps) {
    typedef Simd<T> V;
    typedef typename V::Register R;
    const int64_t wide = g.wide;
    for (int64_t t = 0; t < steps; ++t) {
        const T* s = g.before(t, reset);
        T* next = g.states + (t + 1) * ROWS * wide;
        R v[ROWS], z[ROWS], e[ROWS];
        for (int64_t r = 0; r < ROWS; ++r) {
            v[r] = V::all(FORM == DELTA ? at.v[t][r] + at.z[t][r] : at.v[t][r]);
            z[r] = V::all(at.z[t][r]), e[r] = V::all(at.decay[t][r]);
        }
        for (int64_t i = 0; i < wide; i += V::lanes) {
            const R k = V::load(g.k + t * wide + i), d = V::load(g.decay + t * wide + i);
            const R b = FORM == RANK_ONE ? V::load(g.b + t * wide + i) : R{};
            for (int64_t r = 0; r < ROWS; ++r) {
                R x = V::load(s + r * wide + i) * (FORM == BY_VALUE ? e[r] : d) + k * v[r];
                if (FORM == RANK_ONE) x += b * z[r];
                V::store(next + r * wide + i, x);
            }
        }
    }
}

// ROWS turned rows back over a group of steps; grad (ROWS, wide) is what reaches S after it, and then before.
template <class T, Form FORM, bool BEFORE>
void back(Group<T>& g, Turned<T>& at, const unsigned char* reset, int64_t steps, T* grad) {
    typedef Simd<T> V;
    typedef typename V::Register R;
    constexpr bool REMOVES = FORM == RANK_ONE || FORM == DELTA;
    const int64_t wide = g.wide;
    again<T, FORM>(g, at, reset, steps);
    for (int64_t t = steps - 1; t >= 0; --t) {
        const T *s = g.before(t, reset), *after = BEFORE ? s : g.states + (t + 1) * ROWS * wide;
        const int64_t row = t * wide;
        R v[ROWS], o[ROWS], z[ROWS], e[ROWS], sum_v[ROWS] = {}, sum_z[ROWS] = {}, sum_e[ROWS] = {};
        for (int64_t r = 0; r < ROWS; ++r) {
            v[r] = V::all(FORM == DELTA ? at.v[t][r] + at.z[t][r] : at.v[t][r]), o[r] = V::all(at.out[t][r]);
            z[r] = V::all(at.z[t][r]), e[r] = V::all(at.decay[t][r]);
        }
        for (int64_t i = 0; i < wide; i += V::lanes) {
            const R q = V::load(g.q + row + i), k = V::load(g.k + row + i);
            const R b = FORM == RANK_ONE ? V::load(g.b + row + i) : R{};
            R to_q = V::load(g.grad_q + row + i), to_k = V::load(g.grad_k + row + i);
            R to_b = FORM == RANK_ONE ? V::load(g.grad_b + row + i) : R{};
            for (int64_t r = 0; r < ROWS; ++r) {
                R x = V::load(grad + r * wide + i);
                to_q += o[r] * V::load(after + r * wide + i);
                if (!BEFORE) {
                    x += o[r] * q;
                    V::store(grad + r * wide + i, x);
                }
                to_k += v[r] * x;
                sum_v[r] += k * x;
                if (FORM == RANK_ONE) to_b += z[r] * x, sum_z[r] += b * x;
            }
            V::store(g.grad_q + row + i, to_q);
            V::store(g.grad_k + row + i, to_k);
            if (FORM == RANK_ONE) V::store(g.grad_b + row + i, to_b);
        }
        for (int64_t r = 0; r < ROWS; ++r) {
            at.to_v[t][r] = across<T>(sum_v[r]);
            // now what reaches a^T S
            if (FORM == RANK_ONE) z[r] = V::all(across<T>(sum_z[r]));
            if (FORM == DELTA) z[r] = V::all(at.to_v[t][r]);
        }
        for (int64_t i = 0; i < wide; i += V::lanes) {
            const R d = V::load(g.decay + row + i), q = BEFORE ? V::load(g.q + row + i) : R{};
            const R a = REMOVES ? V::load(g.a + row + i) : R{};
            R to_decay = V::load(g.grad_decay + row + i), to_a = REMOVES ? V::load(g.grad_a + row + i) : R{};
            for (int64_t r = 0; r < ROWS; ++r) {
                const R x = V::load(grad + r * wide + i), was = V::load(s + r * wide + i);
                R y = x * (FORM == BY_VALUE ? e[r] : d);
                if (FORM == BY_VALUE) sum_e[r] += x * was;
                else to_decay += x * was;
                if (REMOVES) to_a += z[r] * was, y += z[r] * a;
                if (BEFORE) y += o[r] * q;
                V::store(grad + r * wide + i, y);
            }
            V::store(g.grad_decay + row + i, to_decay);
            if (REMOVES) V::store(g.grad_a + row + i, to_a);
        }
        if (FORM == BY_VALUE)
            for (int64_t r = 0; r < ROWS; ++r) at.to_decay[t][r] = across<T>(sum_e[r]);
        // what lies before a reset is reached by nothing from after it
        if (reset && reset[t]) std::fill(grad, grad + ROWS * wide, T(0));
    }
}

template <class T>
void back(Group<T>& g, Turned<T>& at, const Inputs<T>& in, const unsigned char* reset, int64_t steps, T* grad) {
    if (in.delta()) {
        if (in.before) back<T, DELTA, true>(g, at, reset, steps, grad);
        else back<T, DELTA, false>(g, at, reset, steps, grad);
    } else if (in.rank_one()) {
        if (in.before) back<T, RANK_ONE, true>(g, at, reset, steps, grad);
        else back<T, RANK_ONE, false>(g, at, reset, steps, grad);
    } else if (in.kind == VALUE) {
        if (in.before) back<T, BY_VALUE, true>(g, at, reset, steps, grad);
        else back<T, BY_VALUE, false>(g, at, reset, steps, grad);
    } else {
        if (in.before) back<T, PLAIN, true>(g, at, reset, steps, grad);
        else back<T, PLAIN, false>(g, at, reset, steps, grad);
    }
}

// Pointers into one step's row.
template <class T>
struct Gradients {
    T *q, *k, *v, *decay, *a, *b, *start;
};

template <class T>
void backward(const Sizes& n, const Inputs<T>& in, const T* kept, const T* z, T scale, const Array<T>& grad_o,
              const T* grad_last, const Gradients<T>& to, int64_t threads) {
    in_parallel(threads, [=](int64_t part, int64_t parts) {
        const int64_t wide = n.wide(n.keys, Simd<T>::lanes), tall = n.wide(n.values, ROWS), whole = n.keys * n.values;
        Group<T> g(wide);
        std::vector<T> reaching(size_t(tall * wide)), decay_of(size_t(GROUP * n.values));
        Turned<T> at;
        for (int64_t task = n.batch * n.heads * part / parts; task < n.batch * n.heads * (part + 1) / parts; ++task) {
            const int64_t b = task / n.heads, h = task % n.heads;
            const auto place = [=](int64_t t) { return (b * n.time + t) * n.heads + h; };
            std::fill(reaching.begin(), reaching.end(), T(0));
            if (grad_last)
                for (int64_t i = 0; i < n.keys; ++i)
                    for (int64_t j = 0; j < n.values; ++j) reaching[size_t(j * wide + i)] = grad_last[task * whole + i * n.values + j];
            for (int64_t group = kept_states(n.time) - 1; group >= 0; --group) {
                const int64_t first = group * GROUP, steps = n.time - first < GROUP ? n.time - first : GROUP;
                const unsigned char* reset = in.reset ? in.reset + b * n.time + first : nullptr;
                g.clear();
                for (int64_t t = 0; t < steps; ++t) {
                    padded(in.q.of(b, first + t, h), n.keys, wide, g.q + t * wide);
                    padded(in.k.of(b, first + t, h), n.keys, wide, g.k + t * wide);
                    if (in.kind == VALUE) factors(in, b, first + t, h, n.values, n.values, &decay_of[size_t(t * n.values)]);
                    else factors(in, b, first + t, h, n.keys, wide, g.decay + t * wide);
                    if (in.rank_one()) padded(in.a.of(b, first + t, h), n.keys, wide, g.a + t * wide);
                    if (in.rank_one() && !in.delta()) padded(in.b.of(b, first + t, h), n.keys, wide, g.b + t * wide);
                }
                const T* start = kept + (task * kept_states(n.time) + group) * whole;
                for (int64_t j = 0; j < n.values; j += ROWS) {
                    const int64_t rows = n.values - j < ROWS ? n.values - j : ROWS;
                    std::memset(g.states, 0, size_t(ROWS * wide) * sizeof(T));
                    for (int64_t i = 0; i < n.keys; ++i)
                        for (int64_t r = 0; r < rows; ++r) g.states[r * wide + i] = start[i * n.values + j + r];
                    for (int64_t t = 0; t < steps; ++t)
                        for (int64_t r = 0; r < ROWS; ++r) {
                            const bool there = r < rows;
                            at.v[t][r] = there ? in.v.of(b, first + t, h)[j + r] : T(0);
                            at.out[t][r] = there ? scale * grad_o.of(b, first + t, h)[j + r] : T(0);
                            at.z[t][r] = there && z ? z[place(first + t) * n.values + j + r] : T(0);
                            at.decay[t][r] = there && in.kind == VALUE ? decay_of[size_t(t * n.values + j + r)] : T(0);
                        }
                    T* grad = &reaching[size_t(j * wide)];
                    back(g, at, in, reset, steps, grad);
                    for (int64_t t = 0; t < steps; ++t)
                        for (int64_t r = 0; r < rows; ++r) {
                            to.v[place(first + t) * n.values + j + r] = at.to_v[t][r];
                            if (in.kind == VALUE) to.decay[place(first + t) * n.values + j + r] = at.to_decay[t][r];
                        }
                }
                const size_t bytes = size_t(n.keys) * sizeof(T);
                for (int64_t t = 0; t < steps; ++t) {
                    const int64_t row = place(first + t) * n.keys;
                    std::memcpy(to.q + row, g.grad_q + t * wide, bytes);
                    std::memcpy(to.k + row, g.grad_k + t * wide, bytes);
                    if (in.rank_one()) std::memcpy(to.a + row, g.grad_a + t * wide, bytes);
                    if (in.rank_one() && !in.delta()) std::memcpy(to.b + row, g.grad_b + t * wide, bytes);
                    if (in.kind == KEY) std::memcpy(to.decay + row, g.grad_decay + t * wide, bytes);
                    if (in.kind == HEAD) {
                        T total = 0;
                        for (int64_t i = 0; i < n.keys; ++i) total += g.grad_decay[t * wide + i];
                        to.decay[place(first + t)] = total;
                    }
                }
            }
            for (int64_t i = 0; i < n.keys; ++i)
                for (int64_t j = 0; j < n.values; ++j) to.start[task * whole + i * n.values + j] = reaching[size_t(j * wide + i)];
        }
    });
}

}  // namespace
