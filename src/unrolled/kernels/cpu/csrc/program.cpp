// The time loop: a program of products and pointwise operations, run once a step over a block of rows.
//
// Compiled once for each instruction set; NAME(f) makes the names apart.
#include <algorithm>

#include "bf16.h"
#include "int8.h"
#include "pointwise.h"
#include "threads.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(f) JOIN(f, INSTRUCTION_SET)

namespace {

// Where the rows of one value lie. Step t of it begins at base + ((t + first) % period, or t + first) * step. What lasts
// for less than a step has memory for a block of rows alone, with a thread's own at base + its number * thread. With ids,
// the rows are those of a table at base, and the numbers of step t begin at ids + (t + first) * step.
struct Place {
    int64_t base, step, row, thread, first, period, ids;
};

struct Operation {
    int64_t code, to, to_at, a, a_at, b, b_at, acc, acc_at, width, depth, matrix;
};

template <class T>
struct Rows {
    T* at;
    int64_t row;
    const int64_t* ids;
    T* of(int64_t r) const { return at ? at + (ids ? ids[r] : r) * row : nullptr; }
};

// The rows one after another, as a product reads them. memory: for those of a table.
template <class T>
Rows<T> in_order(Rows<T> rows, int64_t count, int64_t width, std::vector<T>& memory) {
    if (!rows.ids) return rows;
    memory.resize(size_t(count * width));
    for (int64_t r = 0; r < count; ++r) std::copy_n(rows.of(r), width, &memory[size_t(r * width)]);
    return {memory.data(), width, nullptr};
}

// How the matrices are kept, and what is done to the rows that they multiply; all but the first are of float only. As in
// library.py. BF16_FACTORS: see bf16.h. BF16_WEIGHTS: the matrix kept as bf16.
// INT8_WEIGHTS: see int8.h.
enum Products : int64_t { EXACT, BF16_FACTORS, BF16_WEIGHTS, INT8_WEIGHTS };

// One product. memory, words: for rows that are rounded before.
void multiply(Products kind, int64_t rows, const float* a, int64_t a_row, const void* b, int64_t k, int64_t n,
              const float* add, int64_t add_row, float* c, int64_t c_row, std::vector<float>& memory,
              std::vector<int32_t>& words) {
    switch (kind) {
        case BF16_FACTORS:
            product_lowered(rows, a, a_row, b, k, n, add, add_row, c, c_row, memory);
            break;
        case BF16_WEIGHTS:
            product_bf16(rows, a, a_row, static_cast<const uint16_t*>(b), k, n, add, add_row, c, c_row, memory);
            break;
        case INT8_WEIGHTS:
            product_int8(rows, a, a_row, static_cast<const int8_t*>(b), k, n, add, add_row, c, c_row, words);
            break;
        default: product(rows, a, a_row, static_cast<const float*>(b), k, n, add, add_row, c, c_row);
    }
}

void multiply(Products, int64_t rows, const double* a, int64_t a_row, const void* b, int64_t k, int64_t n,
              const double* add, int64_t add_row, double* c, int64_t c_row, std::vector<double>&, std::vector<int32_t>&) {
    product(rows, a, a_row, static_cast<const double*>(b), k, n, add, add_row, c, c_row);
}

template <class T>
void run_rows(const Operation* ops, const double* numbers, int64_t count, const Place* places, int64_t place_count,
              void* const* matrices, int64_t steps, bool backwards, Products products, int64_t low, int64_t high,
              int64_t thread) {
    std::vector<Rows<T>> at(size_t(place_count) + 1);
    std::vector<T> memory, memory_a, memory_acc;
    std::vector<int32_t> words;
    const auto find = [&](int64_t place, int64_t offset) -> Rows<T> {
        if (place < 0) return {nullptr, 0, nullptr};
        return {at[size_t(place)].at + offset, at[size_t(place)].row, at[size_t(place)].ids};
    };
    const auto lasting = [&](int64_t place) { return place >= 0 && places[place].row && !places[place].thread; };
    const bool ahead = products == INT8_WEIGHTS;  // beside which what is between the products counts
    for (int64_t s = 0; s < steps; ++s) {
        const int64_t t = backwards ? steps - 1 - s : s;
        for (int64_t i = 0; i < place_count; ++i) {
            const Place& p = places[i];
            const int64_t when = p.period ? (t + p.first) % p.period : t + p.first;
            T* const base = reinterpret_cast<T*>(p.base);
            if (p.ids) at[size_t(i)] = {base, p.row, reinterpret_cast<const int64_t*>(p.ids) + when * p.step + low};
            else at[size_t(i)] = {base + (p.thread ? thread * p.thread : when * p.step + low * p.row), p.row, nullptr};
        }
        for (int64_t i = 0; i < count;) {
            const Operation& op = ops[i];
            if (op.code == LINEAR) {
                const Rows<T> to = find(op.to, op.to_at);
                const Rows<T> acc = in_order(find(op.acc, op.acc_at), high - low, op.width, memory_acc);
                const Rows<T> a = in_order(find(op.a, op.a_at), high - low, op.depth, memory_a);
                multiply(products, high - low, a.at, a.row, matrices[op.matrix], op.depth, op.width, acc.at, acc.row,
                         to.at, to.row, memory, words);
                ++i;
                continue;
            }
            int64_t end = i;  // pointwise operations in a row are done row by row: what they pass on stays in the cache
            while (end < count && ops[end].code != LINEAR) ++end;
            for (int64_t r = 0; r < high - low; ++r)
                for (int64_t j = i; j < end; ++j) {
                    const Operation& o = ops[j];
                    if (ahead && r + 1 < high - low) {
                        if (lasting(o.to)) read_ahead<true>(find(o.to, o.to_at).of(r + 1), o.width);
                        if (lasting(o.a)) read_ahead(find(o.a, o.a_at).of(r + 1), o.width);
                        if (lasting(o.b)) read_ahead(find(o.b, o.b_at).of(r + 1), o.width);
                    }
                    pointwise<T>(o.code, find(o.to, o.to_at).of(r), find(o.a, o.a_at).of(r), find(o.b, o.b_at).of(r),
                                 find(o.acc, o.acc_at).of(r), o.width, T(numbers[2 * j]), T(numbers[2 * j + 1]));
                }
            i = end;
        }
    }
}

// block: rows that go through all steps together, at most.
template <class T>
void run(const Operation* ops, const double* numbers, int64_t count, const Place* places, int64_t place_count,
         void* const* matrices, int64_t steps, int64_t backwards, int64_t products, int64_t rows, int64_t threads,
         int64_t block) {
    in_parallel(threads, [=](int64_t i, int64_t of) {
        const int64_t first = rows * i / of, own = rows * (i + 1) / of - first, blocks = (own + block - 1) / block;
        for (int64_t b = 0; b < blocks; ++b)
            run_rows<T>(ops, numbers, count, places, place_count, matrices, steps, backwards != 0, Products(products),
                        first + own * b / blocks, first + own * (b + 1) / blocks, i);
    });
}

}  // namespace

#define EXPORT(T, KIND)                                                                                               \
    extern "C" int64_t NAME(packed_size_##KIND)(int64_t k, int64_t n) { return int64_t(packed_size<T>(k, n)); }       \
    extern "C" void NAME(pack_##KIND)(const T* from, int64_t row, int64_t column, int64_t k, int64_t n, T* to) {      \
        pack<T>(from, row, column, k, n, to);                                                                         \
    }                                                                                                                 \
    extern "C" void NAME(run_##KIND)(const Operation* ops, const double* numbers, int64_t count, const Place* places, \
                                     int64_t place_count, void* const* matrices, int64_t steps, int64_t backwards,    \
                                     int64_t products, int64_t rows, int64_t threads, int64_t block) {                \
        run<T>(ops, numbers, count, places, place_count, matrices, steps, backwards, products, rows, threads, block); \
    }
EXPORT(float, float)
EXPORT(double, double)

extern "C" int64_t NAME(lowered_size)(int64_t k, int64_t n) { return lowered_size(k, n); }
extern "C" void NAME(pack_lowered)(const float* from, int64_t row, int64_t column, int64_t k, int64_t n, void* to) {
    pack_lowered(from, row, column, k, n, to);
}
