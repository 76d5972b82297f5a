// h(t) = a(t) h(t-1) + b(t) elementwise, real or complex: one pass over time, and one back.
//
// Both are bound by memory: everything is read once and written once. Threads share the columns. Compiled once for each
// instruction set, as program.cpp.
#include "complex.h"
#include "threads.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(f) JOIN(f, INSTRUCTION_SET)

namespace {

// A (steps, rows, columns) array: columns side by side, or one for all; strides of a step and of a row in numbers.
template <class T>
struct Array {
    T* at;
    int64_t step, row;
    T* of(int64_t t, int64_t r) const { return at + t * step + r * row; }
};

struct Sizes {
    int64_t steps, rows, columns;                // counted in numbers
    int64_t low, high, first_row, end_row;       // this thread's columns and rows
    bool by_rows;                                // a row's steps lie nearer to each other than the rows of a step
};

// f(t, r) for all of this thread's steps and rows, in the order in which they lie in memory; forward or back in time.
template <bool BACK, class F>
void in_order(const Sizes& n, F f) {
    const auto time = [&](int64_t i) { return BACK ? n.steps - 1 - i : i; };
    if (n.by_rows) {
        for (int64_t r = n.first_row; r < n.end_row; ++r)
            for (int64_t i = 0; i < n.steps; ++i) f(time(i), r);
    } else {
        for (int64_t i = 0; i < n.steps; ++i)
            for (int64_t r = n.first_row; r < n.end_row; ++r) f(time(i), r);
    }
}

// What a pass writes is not read again for long where it is larger than a cache: it goes to memory directly then,
// which saves the reading of what is overwritten.
constexpr int64_t CACHED = 1 << 20;

template <class T>
bool streams(const Sizes& n, std::initializer_list<const void*> written) {
#ifdef __AVX512F__
    if (n.steps * n.rows * n.columns * int64_t(sizeof(T)) < CACHED || n.columns * sizeof(T) % VECTOR_BYTES) return false;
    for (const void* p : written)
        if (uintptr_t(p) % VECTOR_BYTES) return false;
    return true;
#else
    return false;
#endif
}

template <bool STREAM, class T>
inline void put(T* p, typename Simd<T>::Register v) {
#ifdef __AVX512F__
    if constexpr (STREAM) {
        _mm512_stream_si512((__m512i*)p, (__m512i)v);
        return;
    }
#endif
    Simd<T>::store(p, v);
}

// f(i, count) for every vector of a row: count is that of its lanes for all but the last, which may have fewer.
template <class T, class F>
inline void across(int64_t low, int64_t high, F f) {
    constexpr int lanes = Simd<T>::lanes;
    int64_t i = low;
    for (; i + lanes <= high; i += lanes) f(i, std::integral_constant<int, lanes>());
    if (i < high) f(i, int(high - i));
}

template <class T, int N>
inline typename Simd<T>::Register get(const T* p, std::integral_constant<int, N>) {
    return Simd<T>::load(p);
}
template <class T>
inline typename Simd<T>::Register get(const T* p, int count) {
    return Simd<T>::load(p, count);
}
template <bool STREAM, class T, int N>
inline void set(T* p, typename Simd<T>::Register v, std::integral_constant<int, N>) {
    put<STREAM>(p, v);
}
template <bool STREAM, class T>
inline void set(T* p, typename Simd<T>::Register v, int count) {
    Simd<T>::store(p, v, count);
}

// K: Real or Complex numbers of T. WIDE: a has a factor for each column, else one for all.
template <class K, bool WIDE, bool STREAM, class T = typename K::Number>
void forward(Array<const T> a, Array<const T> b, const T* start, Array<const T> initial, const unsigned char* reset,
             Array<T> h, Sizes n) {
    std::vector<T> carry(STREAM ? n.rows * (n.high - n.low) : 0);  // what was written is no longer in a cache
    in_order<false>(n, [&](int64_t t, int64_t r) {
        T* kept = STREAM ? carry.data() + r * (n.high - n.low) - n.low : nullptr;
        const T* last = reset && reset[t * n.rows + r] ? initial.of(0, r)
                        : !t                           ? start + r * n.columns
                        : STREAM                       ? kept
                                                       : h.of(t - 1, r);
        const T *x = a.of(t, r), *y = b.of(t, r);
        T* out = h.of(t, r);
        const auto one = K::same(x);
        across<T>(n.low, n.high, [=](int64_t i, auto count) {
            const auto v = get(y + i, count) + K::times(WIDE ? get(x + i, count) : one, get(last + i, count));
            set<STREAM>(out + i, v, count);
            if (STREAM) set<false>(kept + i, v, count);
        });
    });
}

// grad_b(t) = grad(t) + conj(a(t+1)) grad_b(t+1), grad_a(t) = grad_b(t) conj(h(t-1)). grad_a and grad_initial may be
// absent; ADD: grad_a, zeros, has one row for several, whose sum it takes. Not WIDE: it takes sums over the columns.
template <class K, bool WIDE, bool ADD, bool STREAM, class T = typename K::Number>
void backward(Array<const T> a, Array<const T> h, const T* start, Array<const T> initial, const unsigned char* reset,
              Array<const T> grad, Array<T> grad_a, Array<T> grad_b, T* grad_start, T* grad_initial, Sizes n) {
    typedef typename Simd<T>::Register V;
    std::vector<T> carry(STREAM ? n.rows * (n.high - n.low) : 0);
    in_order<true>(n, [&](int64_t t, int64_t r) {
        const bool fresh = reset && reset[t * n.rows + r];
        const bool cut = t + 1 == n.steps || (reset && reset[(t + 1) * n.rows + r]);
        T *out = grad_b.of(t, r), *kept = STREAM ? carry.data() + r * (n.high - n.low) - n.low : nullptr;
        const T *g = grad.of(t, r), *x = a.of(t, r), *factor = cut ? x : a.of(t + 1, r);
        const T* later = cut ? g : STREAM ? kept : grad_b.of(t + 1, r);
        const T* last = fresh ? initial.of(0, r) : t ? h.of(t - 1, r) : start + r * n.columns;
        T* to = grad_a.at ? grad_a.of(t, r) : nullptr;
        const V one = K::same(factor);
        V total = {};
        across<T>(n.low, n.high, [&, cut](int64_t i, auto count) {
            V v = get(g + i, count);
            if (!cut) v += K::times(K::conj(WIDE ? get(factor + i, count) : one), get(later + i, count));
            set<STREAM>(out + i, v, count);
            if (STREAM) set<false>(kept + i, v, count);
            if (!to) return;
            const V of_a = K::times(K::conj(get(last + i, count)), v);
            if (!WIDE) total += of_a;
            else if (ADD) set<false>(to + i, get(to + i, count) + of_a, count);
            else set<STREAM>(to + i, of_a, count);
        });
        if (!WIDE && to) K::sum(to, total);
        T* ends = fresh ? grad_initial : t ? nullptr : grad_start;
        if (!ends) return;
        ends += r * n.columns;
        const T* now = STREAM ? kept : out;
        const V own = K::same(x);
        across<T>(n.low, n.high, [=](int64_t i, auto count) {
            const V v = K::times(K::conj(WIDE ? get(x + i, count) : own), get(now + i, count));
            set<false>(ends + i, get(ends + i, count) + v, count);
        });
    });
}

// part(rows and columns, number of the thread) in each thread. Threads share the rows where these are one after another in
// memory and enough, and none is written by two; else the columns.
template <class F>
void share(Sizes all, bool rows_alone, int64_t threads, F part) {
    const bool rows = all.by_rows && rows_alone && all.rows >= threads;
    const auto edge = [=](int64_t i) { return i == threads ? all.columns : all.columns * i / threads / 16 * 16; };
    in_parallel(threads, [&](int64_t i, int64_t) {
        Sizes n = all;
        n.low = rows ? 0 : edge(i), n.high = rows ? all.columns : edge(i + 1);
        n.first_row = rows ? all.rows * i / threads : 0, n.end_row = rows ? all.rows * (i + 1) / threads : all.rows;
        part(n, i);
    });
}

template <class K, bool WIDE, class T = typename K::Number>
void all_forward(Array<const T> a, Array<const T> b, const T* start, Array<const T> initial, const unsigned char* reset,
                 Array<T> h, int64_t steps, int64_t rows, int64_t columns, int64_t threads) {
    share({steps, rows, columns, 0, 0, 0, 0, h.step < h.row}, true, threads, [=](Sizes n, int64_t) {
        if (streams<T>(n, {h.at})) forward<K, WIDE, true>(a, b, start, initial, reset, h, n);
        else forward<K, WIDE, false>(a, b, start, initial, reset, h, n);
    });
}

template <class K, bool WIDE, class T = typename K::Number>
void all_backward(Array<const T> a, Array<const T> h, const T* start, Array<const T> initial, const unsigned char* reset,
                  Array<const T> grad, Array<T> grad_a, int64_t of_thread, bool add, Array<T> grad_b, T* grad_start,
                  T* grad_initial, int64_t steps, int64_t rows, int64_t columns, int64_t threads) {
    const bool own_rows = !grad_a.at || !WIDE || grad_a.row || rows == 1;
    share({steps, rows, columns, 0, 0, 0, 0, h.step < h.row}, own_rows, threads, [=](Sizes n, int64_t thread) {
        const auto run = [=](auto f) {
            Array<T> own = {grad_a.at ? grad_a.at + thread * of_thread : nullptr, grad_a.step, grad_a.row};
            f(a, h, start, initial, reset, grad, own, grad_b, grad_start, grad_initial, n);
        };
        const bool stream = streams<T>(n, {grad_b.at, WIDE && !add ? grad_a.at : nullptr});
        if (add && stream) run(backward<K, WIDE, true, true>);
        else if (add) run(backward<K, WIDE, true, false>);
        else if (stream) run(backward<K, WIDE, false, true>);
        else run(backward<K, WIDE, false, false>);
    });
}

}  // namespace

// kind: 0 real, 1 complex, as pairs of numbers; wide: whether a has a factor for each column. Strides and columns are
// counted in numbers. of_thread: from one thread's grad_a to the next one's. grad_b has the
// strides of h. grad_start and grad_initial are zeros.
#define BY_KIND(F, ...)                                       \
    if (complex && wide) F<Complex<T>, true>(__VA_ARGS__);    \
    else if (complex) F<Complex<T>, false>(__VA_ARGS__);      \
    else if (wide) F<Real<T>, true>(__VA_ARGS__);             \
    else F<Real<T>, false>(__VA_ARGS__)
#define EXPORT(T_, KIND)                                                                                               \
    extern "C" void NAME(scan_forward_##KIND)(                                                                         \
        int64_t complex, int64_t wide, const T_* a, int64_t a_step, int64_t a_row, const T_* b, int64_t b_step,         \
        int64_t b_row, const T_* start, const T_* initial, int64_t initial_row, const unsigned char* reset, T_* h,      \
        int64_t h_step, int64_t h_row, int64_t steps, int64_t rows, int64_t columns, int64_t threads) {                                               \
        typedef T_ T;                                                                                                  \
        const Array<const T> of_a = {a, a_step, a_row}, of_b = {b, b_step, b_row}, first = {initial, 0, initial_row};   \
        const Array<T> of_h = {h, h_step, h_row};                                                                      \
        BY_KIND(all_forward, of_a, of_b, start, first, reset, of_h, steps, rows, columns, threads);                    \
    }                                                                                                                  \
    extern "C" void NAME(scan_backward_##KIND)(                                                                        \
        int64_t complex, int64_t wide, const T_* a, int64_t a_step, int64_t a_row, const T_* h, int64_t h_step,         \
        int64_t h_row, const T_* start, const T_* initial, int64_t initial_row, const unsigned char* reset,             \
        const T_* grad, int64_t grad_step, int64_t grad_row, T_* grad_a, int64_t of_thread, int64_t to_step,            \
        int64_t to_row, int64_t add, T_* grad_b, T_* grad_start, T_* grad_initial, int64_t steps, int64_t rows,         \
        int64_t columns, int64_t threads) {                                                                            \
        typedef T_ T;                                                                                                  \
        const Array<const T> of_a = {a, a_step, a_row}, of_h = {h, h_step, h_row}, of_y = {grad, grad_step, grad_row};  \
        const Array<const T> first = {initial, 0, initial_row};                                                        \
        const Array<T> to = {grad_a, to_step, to_row}, to_b = {grad_b, h_step, h_row};                                  \
        BY_KIND(all_backward, of_a, of_h, start, first, reset, of_y, to, of_thread, add != 0, to_b, grad_start,         \
                grad_initial, steps, rows, columns, threads);                                                          \
    }
EXPORT(float, float)
EXPORT(double, double)
