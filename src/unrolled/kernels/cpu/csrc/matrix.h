// Matrix states: S(t) = Diag(d) S(t-1) Diag(e) + b (a^T S(t-1)) + k v^T and o(t) = scale S^T q.
//
// The loop over time as it stands: a matrix of usual size stays in the first-level cache, so that a step costs its
// arithmetic and no more, where forms in chunks add work. The columns of S are independent, given a^T S.
#pragma once
#include <algorithm>

#include "simd.h"
#include "threads.h"

namespace {

constexpr int64_t GROUP = 16;  // steps between kept states

enum Decay : int64_t { NONE, HEAD, KEY, VALUE };

// (batch, time, heads, n), n side by side; absent where `at` is null.
template <class T>
struct Array {
    const T* at;
    int64_t batch, step, head;
    const T* of(int64_t b, int64_t t, int64_t h) const { return at + b * batch + t * step + h * head; }
};

struct Sizes {
    int64_t batch, time, heads, keys, values;
    int64_t wide(int64_t n, int64_t lanes) const { return (n + lanes - 1) / lanes * lanes; }
};

template <class T>
struct Inputs {
    Array<T> q, k, v, decay, a, b;
    const unsigned char* reset;  // (batch, time)
    Decay kind;
    bool before;  // o(t) reads S(t-1)
    bool rank_one() const { return a.at != nullptr; }
    bool delta() const { return rank_one() && b.at == nullptr; }  // b is k
};

template <class T>
inline T across(typename Simd<T>::Register x) {
    T lane[Simd<T>::lanes];
    Simd<T>::store(lane, x);
    for (int width = Simd<T>::lanes / 2; width; width /= 2)
        for (int l = 0; l < width; ++l) lane[l] += lane[l + width];
    return lane[0];
}

// o (+)= q^T S for `N` vectors of columns.
template <class T, int N>
void read(int64_t keys, const T* s, int64_t row, const T* q, T* o) {
    typedef Simd<T> V;
    typename V::Register sum[N] = {};
    for (int64_t i = 0; i < keys; ++i)
        for (int n = 0; n < N; ++n) sum[n] += V::all(q[i]) * V::load(s + i * row + n * V::lanes);
    for (int n = 0; n < N; ++n) V::store(o + n * V::lanes, sum[n]);
}

enum Form { PLAIN, RANK_ONE, DELTA, BY_VALUE };

// One step of `N` vectors of columns; z is a^T S, of S before.
template <class T, int N, Form FORM>
void step(int64_t keys, T* s, int64_t row, const T* q, const T* k, const T* v, const T* decay, const T* b, const T* z, T* o) {
    typedef Simd<T> V;
    typename V::Register sum[N] = {}, value[N], from[N], kept[N];
    for (int n = 0; n < N; ++n) {
        value[n] = V::load(v + n * V::lanes);
        if (FORM == RANK_ONE) from[n] = V::load(z + n * V::lanes);
        if (FORM == DELTA) value[n] += V::load(z + n * V::lanes);
        if (FORM == BY_VALUE) kept[n] = V::load(decay + n * V::lanes);
    }
    for (int64_t i = 0; i < keys; ++i) {
        const auto key = V::all(k[i]), query = V::all(q[i]), keep = V::all(FORM == BY_VALUE ? T(1) : decay[i]);
        for (int n = 0; n < N; ++n) {
            T* at = s + i * row + n * V::lanes;
            typename V::Register x = V::load(at) * (FORM == BY_VALUE ? kept[n] : keep) + key * value[n];
            if (FORM == RANK_ONE) x += V::all(b[i]) * from[n];
            V::store(at, x);
            sum[n] += query * x;
        }
    }
    for (int n = 0; n < N; ++n) V::store(o + n * V::lanes, sum[n]);
}

template <class T, int N>
void columns(const Inputs<T>& in, int64_t keys, T* s, int64_t row, const T* q, const T* k, const T* v, const T* decay,
             const T* a, const T* b, T* z, T* o) {
    if (in.rank_one()) read<T, N>(keys, s, row, a, z);
    if (in.before) read<T, N>(keys, s, row, q, o);
    T unread[N * Simd<T>::lanes];
    T* const out = in.before ? unread : o;
    if (in.delta()) step<T, N, DELTA>(keys, s, row, q, k, v, decay, b, z, out);
    else if (in.rank_one()) step<T, N, RANK_ONE>(keys, s, row, q, k, v, decay, b, z, out);
    else if (in.kind == VALUE) step<T, N, BY_VALUE>(keys, s, row, q, k, v, decay, b, z, out);
    else step<T, N, PLAIN>(keys, s, row, q, k, v, decay, b, z, out);
}

// Copies of n numbers, the rest up to `wide` zero.
template <class T>
void padded(const T* from, int64_t n, int64_t wide, T* to) {
    std::memcpy(to, from, size_t(n) * sizeof(T));
    for (int64_t i = n; i < wide; ++i) to[i] = 0;
}

// The factors of one step, of `n` numbers each, as a row.
template <class T>
void factors(const Inputs<T>& in, int64_t b, int64_t t, int64_t h, int64_t n, int64_t wide, T* to) {
    const T* at = in.kind == NONE ? nullptr : in.decay.of(b, t, h);
    if (in.kind == KEY || in.kind == VALUE) return padded(at, n, wide, to);
    for (int64_t i = 0; i < wide; ++i) to[i] = at ? *at : T(1);
}

inline int64_t kept_states(int64_t time) { return (time + GROUP - 1) / GROUP; }

// kept: (batch, heads, groups, keys, values) S before each group; z: (batch, time, heads, values). Either may be absent.
template <class T>
void forward(const Sizes& n, const Inputs<T>& in, const T* start, T scale, T* o, T* last, T* kept, T* z, int64_t threads) {
    constexpr int64_t lanes = Simd<T>::lanes;
    in_parallel(threads, [=](int64_t part, int64_t parts) {
        const int64_t wide = n.wide(n.values, lanes), most = wide > n.keys ? wide : n.keys;
        std::vector<T> memory(size_t(n.keys * wide + 4 * most));
        T *s = memory.data(), *v = s + n.keys * wide, *sums = v + most, *from = sums + most, *decay = from + most;
        for (int64_t task = n.batch * n.heads * part / parts; task < n.batch * n.heads * (part + 1) / parts; ++task) {
            const int64_t b = task / n.heads, h = task % n.heads, whole = n.keys * n.values;
            for (int64_t i = 0; i < n.keys; ++i) padded(start + task * whole + i * n.values, n.values, wide, s + i * wide);
            const auto save = [&](T* to) {
                for (int64_t i = 0; i < n.keys; ++i)
                    std::memcpy(to + i * n.values, s + i * wide, size_t(n.values) * sizeof(T));
            };
            for (int64_t t = 0; t < n.time; ++t) {
                if (kept && t % GROUP == 0) save(kept + (task * kept_states(n.time) + t / GROUP) * whole);
                if (in.reset && in.reset[b * n.time + t]) std::memset(s, 0, size_t(n.keys * wide) * sizeof(T));
                padded(in.v.of(b, t, h), n.values, wide, v);
                factors(in, b, t, h, in.kind == VALUE ? n.values : n.keys, most, decay);
                const T *q = in.q.of(b, t, h), *k = in.k.of(b, t, h);
                const T *one = in.rank_one() ? in.a.of(b, t, h) : nullptr, *two = one && !in.delta() ? in.b.of(b, t, h) : nullptr;
                for (int64_t j = 0; j < wide;) {
                    const T* d = in.kind == VALUE ? decay + j : decay;
                    const int64_t left = (wide - j) / lanes;
#define COLUMNS(N) columns<T, N>(in, n.keys, s + j, wide, q, k, v + j, d, one, two, from + j, sums + j), j += N * lanes
                    if (left >= 4) COLUMNS(4);
                    else if (left >= 2) COLUMNS(2);
                    else COLUMNS(1);
#undef COLUMNS
                }
                const int64_t place = ((b * n.time + t) * n.heads + h) * n.values;
                for (int64_t j = 0; j < n.values; ++j) o[place + j] = scale * sums[j];
                if (z && one) std::memcpy(z + place, from, size_t(n.values) * sizeof(T));
            }
            save(last + task * whole);
        }
    });
}

}  // namespace
