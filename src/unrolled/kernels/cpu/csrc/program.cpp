// The time loop: a program of products and pointwise operations, run once a step over a block of rows. With rounding
// the rows that a product reads are rounded to bf16 first (float only); its matrix comes rounded, its sums stay float.
//
// Compiled once for each instruction set; NAME(f) makes the names apart.
#include <thread>
#include <vector>

#include "pointwise.h"
#include "product.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(f) JOIN(f, INSTRUCTION_SET)

namespace {

// Where the rows of one value lie. Step t of it begins at base + ((t + first) % period, or t + first) * step.
struct Place {
    int64_t base, step, row, thread, first, period;
};

struct Operation {
    int64_t code, to, to_at, a, a_at, b, b_at, acc, acc_at, width, depth, matrix;
};

template <class T>
struct Rows {
    T* at;
    int64_t row;
    T* of(int64_t r) const { return at ? at + r * row : nullptr; }
};

// To the nearest bf16, ties to even; what is not a number stays so.
void round_row(const float* from, float* to, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        uint32_t bits;
        std::memcpy(&bits, from + i, 4);
        const uint32_t even = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000u;
        bits = from[i] == from[i] ? even : bits | 0x400000u;
        std::memcpy(to + i, &bits, 4);
    }
}

void round_row(const double* from, double* to, int64_t count) {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i];
}

template <class T>
void run_rows(const Operation* ops, const double* numbers, int64_t count, const Place* places, int64_t place_count,
              void* const* matrices, int64_t steps, bool backwards, bool rounding, int64_t low, int64_t high,
              int64_t thread) {
    std::vector<Rows<T>> at(size_t(place_count) + 1);
    std::vector<T> rounded;
    const auto find = [&](int64_t place, int64_t offset) -> Rows<T> {
        if (place < 0) return {nullptr, 0};
        return {at[size_t(place)].at + offset, at[size_t(place)].row};
    };
    for (int64_t s = 0; s < steps; ++s) {
        const int64_t t = backwards ? steps - 1 - s : s;
        for (int64_t i = 0; i < place_count; ++i) {
            const Place& p = places[i];
            const int64_t when = p.period ? (t + p.first) % p.period : t + p.first;
            at[size_t(i)] = {reinterpret_cast<T*>(p.base) + when * p.step + low * p.row + thread * p.thread, p.row};
        }
        for (int64_t i = 0; i < count;) {
            const Operation& op = ops[i];
            if (op.code == LINEAR) {
                const Rows<T> to = find(op.to, op.to_at), acc = find(op.acc, op.acc_at);
                Rows<T> a = find(op.a, op.a_at);
                if (rounding) {
                    rounded.resize(size_t((high - low) * op.depth));
                    for (int64_t r = 0; r < high - low; ++r) round_row(a.of(r), &rounded[size_t(r * op.depth)], op.depth);
                    a = {rounded.data(), op.depth};
                }
                product<T>(high - low, a.at, a.row, static_cast<const T*>(matrices[op.matrix]), op.depth, op.width,
                           acc.at, acc.row, to.at, to.row);
                ++i;
                continue;
            }
            int64_t end = i;  // pointwise operations in a row are done row by row: what they pass on stays in the cache
            while (end < count && ops[end].code != LINEAR) ++end;
            for (int64_t r = 0; r < high - low; ++r)
                for (int64_t j = i; j < end; ++j) {
                    const Operation& o = ops[j];
                    pointwise<T>(o.code, find(o.to, o.to_at).of(r), find(o.a, o.a_at).of(r), find(o.b, o.b_at).of(r),
                                 find(o.acc, o.acc_at).of(r), o.width, T(numbers[2 * j]), T(numbers[2 * j + 1]));
                }
            i = end;
        }
    }
}

template <class T>
void run(const Operation* ops, const double* numbers, int64_t count, const Place* places, int64_t place_count,
         void* const* matrices, int64_t steps, int64_t backwards, int64_t rounding, int64_t rows, int64_t threads) {
    std::vector<std::thread> others;
    for (int64_t i = 0; i + 1 < threads; ++i)
        others.emplace_back(run_rows<T>, ops, numbers, count, places, place_count, matrices, steps, backwards != 0,
                            rounding != 0, rows * i / threads, rows * (i + 1) / threads, i);
    run_rows<T>(ops, numbers, count, places, place_count, matrices, steps, backwards != 0, rounding != 0,
                rows * (threads - 1) / threads, rows, threads - 1);
    for (std::thread& one : others) one.join();
}

}  // namespace

#define EXPORT(T, KIND)                                                                                               \
    extern "C" int64_t NAME(packed_size_##KIND)(int64_t k, int64_t n) { return int64_t(packed_size<T>(k, n)); }       \
    extern "C" void NAME(pack_##KIND)(const T* from, int64_t row, int64_t column, int64_t k, int64_t n, T* to) {      \
        pack<T>(from, row, column, k, n, to);                                                                         \
    }                                                                                                                 \
    extern "C" void NAME(run_##KIND)(const Operation* ops, const double* numbers, int64_t count, const Place* places, \
                                     int64_t place_count, void* const* matrices, int64_t steps, int64_t backwards,    \
                                     int64_t rounding, int64_t rows, int64_t threads) {                               \
        run<T>(ops, numbers, count, places, place_count, matrices, steps, backwards, rounding, rows, threads);        \
    }
EXPORT(float, float)
EXPORT(double, double)
