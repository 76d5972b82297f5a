// The losses of a softmax over many rows, and their gradients, tile by tile of the vocabulary.
//
// While a tile's logits are in the second-level cache they become exponentials, less the largest of their row in that
// tile. When all tiles are done the sums over the vocabulary are known, and give a factor for each row of each tile that
// makes them probabilities: one exponential for a logit, for loss and gradients. Rows, and gradients of the matrix, do
// not depend on the number of threads.
#include <limits>

#include "product.h"
#include "threads.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(f) JOIN(f, INSTRUCTION_SET)

namespace {

// Columns of a tile: with 128 rows of it, half of a second-level cache of 512 kB.
template <class T>
constexpr int64_t tile_columns() {
    return 8 * panel_width<T>();
}

// The tiles of a block of rows. vocabulary: V. at: exponentials, (tiles, rows, tile_columns); every tile at the same place
// where step is 0. factors: (tiles, rows).
template <class T>
struct Tiles {
    int64_t rows, vocabulary, step;
    T *at, *factors;
    int64_t count() const { return (vocabulary + tile_columns<T>() - 1) / tile_columns<T>(); }
    int64_t start(int64_t t) const { return t * tile_columns<T>(); }
    int64_t width(int64_t t) const {
        const int64_t left = vocabulary - start(t);
        return left < tile_columns<T>() ? left : tile_columns<T>();
    }
    T* row(int64_t t, int64_t r) const { return at + t * step + r * tile_columns<T>(); }
};

// x[0] to x[n - 1] become e^(x - largest); n is made whole vectors. The largest, and the sum.
template <class T>
void exponentials(T* x, int64_t n, T& largest, T& total) {
    typedef Simd<T> S;
    for (; n % S::lanes; ++n) x[n] = -std::numeric_limits<T>::infinity();
    typename S::Register most = S::load(x), sum = {};
    for (int64_t i = S::lanes; i < n; i += S::lanes) {
        const typename S::Register v = S::load(x + i);
        most = v > most ? v : most;
    }
    largest = most[0];
    for (int l = 1; l < S::lanes; ++l) largest = most[l] > largest ? most[l] : largest;
    const typename S::Register shift = S::all(largest), lowest = S::all(T(-87));
    for (int64_t i = 0; i < n; i += S::lanes) {
        typename S::Register e = S::load(x + i) - shift;
        e = exponential((typename S::Register)(e < lowest ? lowest : e));  // what is not a number stays so
        sum += e;
        S::store(x + i, e);
    }
    total = 0;
    for (int l = 0; l < S::lanes; ++l) total += sum[l];
}

// Losses of rows low to high. matrix: packed (size, V). offset: (V,) added to the logits. shift: (V,) added to the
// target's.
template <class T>
void losses(const Tiles<T>& tiles, int64_t size, const T* x, int64_t x_row, const T* matrix, const T* offset,
            const T* shift, const int64_t* targets, T* nll, int64_t low, int64_t high) {
    const int64_t count = tiles.count();
    std::vector<T> largest(size_t(count * (high - low))), total(largest.size());
    for (int64_t t = 0; t < count; ++t) {
        const int64_t start = tiles.start(t), width = tiles.width(t);
        product(high - low, x + low * x_row, x_row, matrix + start * size, size, width, offset ? offset + start : nullptr, 0,
                tiles.row(t, low), tile_columns<T>());
        for (int64_t r = low; r < high; ++r) {
            T* row = tiles.row(t, r);
            const int64_t target = targets[r] - start;
            if (target >= 0 && target < width) {
                if (shift) row[target] += shift[targets[r]];
                nll[r] = -row[target];
            }
            const size_t i = size_t((r - low) * count + t);
            exponentials(row, width, largest[i], total[i]);
        }
    }
    for (int64_t r = low; r < high; ++r) {
        const T *m = &largest[size_t((r - low) * count)], *s = &total[size_t((r - low) * count)];
        T most = m[0], sum = 0;
        for (int64_t t = 1; t < count; ++t) most = m[t] > most ? m[t] : most;
        for (int64_t t = 0; t < count; ++t) sum += s[t] * std::exp(m[t] - most);
        const T norm = most + std::log(sum);
        nll[r] += norm;
        for (int64_t t = 0; t < count; ++t) tiles.factors[t * tiles.rows + r] = std::exp(m[t] - norm);
    }
}

// Exponentials of rows low to high of tile t become gradients of the logits; grad_x: what the tile adds to theirs.
template <class T>
void row_gradients(const Tiles<T>& tiles, int64_t t, int64_t size, const T* matrix, const int64_t* targets,
                   const T* weight, T* grad_x, int64_t low, int64_t high) {
    typedef Simd<T> S;
    const int64_t start = tiles.start(t), width = tiles.width(t);
    for (int64_t r = low; r < high; ++r) {
        T* row = tiles.row(t, r);
        const typename S::Register factor = S::all(tiles.factors[t * tiles.rows + r] * weight[r]);
        for (int64_t i = 0; i < width; i += S::lanes) S::store(row + i, S::load(row + i) * factor);
        const int64_t target = targets[r] - start;
        if (target >= 0 && target < width) row[target] -= weight[r];
    }
    if (grad_x)
        product(high - low, tiles.row(t, low), tile_columns<T>(), matrix + int64_t(packed_size<T>(1, size)) * start, width,
                size, t ? grad_x + low * size : nullptr, size, grad_x + low * size, size);
}

// What columns low to high of tile t add to the gradients of matrix and bias. x: packed, BLOCK rows after BLOCK rows.
template <class T>
void column_gradients(const Tiles<T>& tiles, int64_t t, int64_t size, const T* x, T* grad_matrix, T* grad_bias, int64_t low,
                      int64_t high) {
    const int64_t start = tiles.start(t) + low;
    if (high <= low) return;
    for (int64_t r = 0; r < tiles.rows; ++r)
        for (int64_t i = low; grad_bias && i < high; ++i) grad_bias[start + i - low] += tiles.row(t, r)[i];
    for (int64_t r = 0; grad_matrix && r < tiles.rows; r += BLOCK) {
        const int64_t depth = tiles.rows - r < BLOCK ? tiles.rows - r : BLOCK;
        turned_product(depth, high - low, size, tiles.row(t, r) + low, tile_columns<T>(),
                       x + int64_t(packed_size<T>(1, size)) * r, true, grad_matrix + start * size, size);
    }
}

template <class T>
void gradients(const Tiles<T>& tiles, int64_t size, const T* x, int64_t x_row, const T* matrix, const int64_t* targets,
               const T* weight, T* grad_x, T* grad_matrix, T* grad_bias, int64_t threads) {
    const int64_t count = tiles.count(), rows = tiles.rows;
    std::vector<T> packed(grad_matrix ? packed_size<T>(rows, size) : 0);
    for (int64_t r = 0; grad_matrix && r < rows; r += BLOCK)
        pack(x + r * x_row, x_row, 1, rows - r < BLOCK ? rows - r : BLOCK, size, &packed[packed_size<T>(r, size)]);
    const auto by_rows = [&](int64_t t, int64_t i, int64_t of) {
        row_gradients(tiles, t, size, matrix, targets, weight, grad_x, rows * i / of, rows * (i + 1) / of);
    };
    const auto by_columns = [&](int64_t t, int64_t i, int64_t of) {
        const int64_t groups = (tiles.width(t) + TILE_ROWS - 1) / TILE_ROWS, end = groups * (i + 1) / of * TILE_ROWS;
        column_gradients(tiles, t, size, packed.data(), grad_matrix, grad_bias, groups * i / of * TILE_ROWS,
                         end < tiles.width(t) ? end : tiles.width(t));
    };
    if (threads == 1) {  // a tile is used for both while it is in the cache
        for (int64_t t = 0; t < count; ++t) by_rows(t, 0, 1), by_columns(t, 0, 1);
        return;
    }
    for (const auto part : {0, 1})
        in_parallel(threads, [&](int64_t i, int64_t of) {
            for (int64_t t = 0; t < count; ++t) part ? by_columns(t, i, of) : by_rows(t, i, of);
        });
}

// A (V, size) matrix as the gradient of rows reads it: each tile packed by itself.
template <class T>
void pack_tiles(int64_t vocabulary, int64_t size, const T* from, int64_t row, T* to) {
    const Tiles<T> tiles = {0, vocabulary, 0, nullptr, nullptr};
    for (int64_t t = 0; t < tiles.count(); ++t)
        pack(from + tiles.start(t) * row, row, 1, tiles.width(t), size, to + packed_size<T>(tiles.start(t), size));
}

}  // namespace

#define EXPORT(T, KIND)                                                                                                  \
    extern "C" int64_t NAME(softmax_columns_##KIND)() { return tile_columns<T>(); }                                      \
    extern "C" void NAME(softmax_pack_##KIND)(int64_t vocabulary, int64_t size, const T* from, int64_t row, T* to) {     \
        pack_tiles<T>(vocabulary, size, from, row, to);                                                                  \
    }                                                                                                                    \
    extern "C" void NAME(softmax_losses_##KIND)(int64_t rows, int64_t vocabulary, int64_t size, const T* x, int64_t x_row, \
                                                const T* matrix, const T* offset, const T* shift,                        \
                                                const int64_t* targets, T* at, int64_t step, T* factors, T* nll,         \
                                                int64_t threads) {                                                       \
        const Tiles<T> tiles = {rows, vocabulary, step, at, factors};                                                    \
        in_parallel(threads, [&](int64_t i, int64_t of) {                                                                \
            losses(tiles, size, x, x_row, matrix, offset, shift, targets, nll, rows * i / of, rows * (i + 1) / of);      \
        });                                                                                                              \
    }                                                                                                                    \
    extern "C" void NAME(softmax_gradients_##KIND)(int64_t rows, int64_t vocabulary, int64_t size, const T* x,           \
                                                   int64_t x_row, const T* matrix, const int64_t* targets,               \
                                                   const T* weight, T* at, int64_t step, T* factors, T* grad_x,          \
                                                   T* grad_matrix, T* grad_bias, int64_t threads) {                      \
        gradients<T>({rows, vocabulary, step, at, factors}, size, x, x_row, matrix, targets, weight, grad_x, grad_matrix, \
                     grad_bias, threads);                                                                                \
    }
EXPORT(float, float)
EXPORT(double, double)
