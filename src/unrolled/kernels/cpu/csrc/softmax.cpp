// The losses of a softmax over many rows, and their gradients, tile by tile of the vocabulary.
//
// While a tile's logits are in the second-level cache they become exponentials, less the largest of their row in that
// tile. When all tiles are done the sums over the vocabulary are known, and give a factor for each row of each tile that
// makes them probabilities: one exponential for a logit, for loss and gradients. Rows, and gradients of the matrix, do
// not depend on the number of threads. E: see elements.h.
#include <limits>

#include "elements.h"
#include "threads.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(f) JOIN(f, INSTRUCTION_SET)

namespace {

// Columns of a tile: with 128 rows of it, half of a second-level cache of 512 kB.
template <class E>
constexpr int64_t tile_columns() {
    return 8 * TILE_VECTORS * Simd<SumOf<E>>::lanes;
}

// The tiles of a block of rows. vocabulary: V. at: exponentials, (tiles, rows, tile_columns); every tile at the same place
// where step is 0. factors: (tiles, rows).
template <class E>
struct Tiles {
    typedef SumOf<E> T;
    static constexpr int64_t columns = tile_columns<E>();
    static_assert(columns % panel_width<E>() == 0, "a tile is whole panels");
    int64_t rows, vocabulary, step;
    T *at, *factors;
    int64_t count() const { return (vocabulary + columns - 1) / columns; }
    int64_t start(int64_t t) const { return t * columns; }
    int64_t width(int64_t t) const { return vocabulary - start(t) < columns ? vocabulary - start(t) : columns; }
    T* row(int64_t t, int64_t r) const { return at + t * step + r * columns; }
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
template <class E, class T = SumOf<E>>
void losses(const Tiles<E>& tiles, int64_t size, const T* x, int64_t x_row, const E* matrix, const T* offset,
            const T* shift, const int64_t* targets, T* nll, int64_t low, int64_t high) {
    typedef Elements<E> Of;
    const int64_t count = tiles.count();
    std::vector<T> memory, largest(size_t(count * (high - low))), total(largest.size());
    for (int64_t t = 0; t < count; ++t) {
        const int64_t start = tiles.start(t), width = tiles.width(t);
        Of::multiply(high - low, x + low * x_row, x_row, matrix + Of::size(size, start), size, width,
                     offset ? offset + start : nullptr, 0, tiles.row(t, low), tiles.columns, memory);
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
template <class E, class T = SumOf<E>>
void row_gradients(const Tiles<E>& tiles, int64_t t, int64_t size, const E* matrix, const int64_t* targets,
                   const T* weight, T* grad_x, int64_t low, int64_t high, std::vector<T>& memory) {
    typedef Elements<E> Of;
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
        Of::multiply(high - low, tiles.row(t, low), tiles.columns, matrix + t * Of::size(tiles.columns, size), width, size,
                     t ? grad_x + low * size : nullptr, size, grad_x + low * size, size, memory);
}

// What columns low to high of tile t add to the gradients of matrix and bias. x: packed, DEPTH elements after DEPTH.
template <class E, class T = SumOf<E>>
void column_gradients(const Tiles<E>& tiles, int64_t t, int64_t size, const E* x, T* grad_matrix, T* grad_bias, int64_t low,
                      int64_t high, std::vector<E>& memory) {
    const int64_t start = tiles.start(t) + low, most = Elements<E>::each * DEPTH;
    if (high <= low) return;
    for (int64_t r = 0; r < tiles.rows; ++r)
        for (int64_t i = low; grad_bias && i < high; ++i) grad_bias[start + i - low] += tiles.row(t, r)[i];
    for (int64_t r = 0; grad_matrix && r < tiles.rows; r += most, x += Elements<E>::size(most, size))
        turned_product<E>(tiles.rows - r < most ? tiles.rows - r : most, high - low, size, tiles.row(t, r) + low,
                          tiles.columns, x, true, grad_matrix + start * size, size, memory);
}

template <class E, class T = SumOf<E>>
void gradients(const Tiles<E>& tiles, int64_t size, const T* x, int64_t x_row, const E* matrix, const int64_t* targets,
               const T* weight, T* grad_x, T* grad_matrix, T* grad_bias, int64_t threads) {
    typedef Elements<E> Of;
    const int64_t count = tiles.count(), rows = tiles.rows, most = Of::each * DEPTH;
    std::vector<E> packed;
    E* const panels = grad_matrix ? room<E>(packed, Of::size(rows, size) + rows / most * Of::size(most, size)) : nullptr;
    for (int64_t r = 0; grad_matrix && r < rows; r += most)
        Of::pack(x + r * x_row, x_row, 1, rows - r < most ? rows - r : most, size, panels + r / most * Of::size(most, size));
    struct Memory {
        std::vector<T> rows;
        std::vector<E> columns;
    };
    const auto by_rows = [&](int64_t t, int64_t i, int64_t of, Memory& memory) {
        row_gradients<E>(tiles, t, size, matrix, targets, weight, grad_x, rows * i / of, rows * (i + 1) / of, memory.rows);
    };
    const auto by_columns = [&](int64_t t, int64_t i, int64_t of, Memory& memory) {
        const int64_t groups = (tiles.width(t) + TILE_ROWS - 1) / TILE_ROWS, end = groups * (i + 1) / of * TILE_ROWS;
        column_gradients<E>(tiles, t, size, panels, grad_matrix, grad_bias, groups * i / of * TILE_ROWS,
                            end < tiles.width(t) ? end : tiles.width(t), memory.columns);
    };
    if (threads == 1) {  // a tile is used for both while it is in the cache
        Memory memory;
        for (int64_t t = 0; t < count; ++t) by_rows(t, 0, 1, memory), by_columns(t, 0, 1, memory);
        return;
    }
    for (const auto part : {0, 1})
        in_parallel(threads, [&](int64_t i, int64_t of) {
            Memory memory;
            for (int64_t t = 0; t < count; ++t) part ? by_columns(t, i, of, memory) : by_rows(t, i, of, memory);
        });
}

// Bytes of a (V, size) matrix as the gradient of rows reads it, each tile packed by itself; pack it.
template <class E>
int64_t tiles_bytes(int64_t vocabulary, int64_t size) {
    const Tiles<E> tiles = {0, vocabulary, 0, nullptr, nullptr};
    return tiles.count() * Elements<E>::size(tiles.columns, size) * int64_t(sizeof(E));
}

template <class E>
void pack_tiles(int64_t vocabulary, int64_t size, const SumOf<E>* from, int64_t row, E* to) {
    const Tiles<E> tiles = {0, vocabulary, 0, nullptr, nullptr};
    for (int64_t t = 0; t < tiles.count(); ++t, to += Elements<E>::size(tiles.columns, size))
        Elements<E>::pack(from + tiles.start(t) * row, row, 1, tiles.width(t), size, to);
}

}  // namespace

#define EXPORT(E, T, KIND)                                                                                               \
    extern "C" int64_t NAME(softmax_columns_##KIND)() { return tile_columns<E>(); }                                      \
    extern "C" int64_t NAME(softmax_size_##KIND)(int64_t vocabulary, int64_t size) {                                     \
        return tiles_bytes<E>(vocabulary, size);                                                                         \
    }                                                                                                                    \
    extern "C" void NAME(softmax_pack_##KIND)(int64_t vocabulary, int64_t size, const T* from, int64_t row, E* to) {     \
        pack_tiles<E>(vocabulary, size, from, row, to);                                                                  \
    }                                                                                                                    \
    extern "C" void NAME(softmax_losses_##KIND)(int64_t rows, int64_t vocabulary, int64_t size, const T* x, int64_t x_row, \
                                                const E* matrix, const T* offset, const T* shift,                        \
                                                const int64_t* targets, T* at, int64_t step, T* factors, T* nll,         \
                                                int64_t threads) {                                                       \
        const Tiles<E> tiles = {rows, vocabulary, step, at, factors};                                                    \
        in_parallel(threads, [&](int64_t i, int64_t of) {                                                                \
            losses<E>(tiles, size, x, x_row, matrix, offset, shift, targets, nll, rows * i / of, rows * (i + 1) / of);   \
        });                                                                                                              \
    }                                                                                                                    \
    extern "C" void NAME(softmax_gradients_##KIND)(int64_t rows, int64_t vocabulary, int64_t size, const T* x,           \
                                                   int64_t x_row, const E* matrix, const int64_t* targets,               \
                                                   const T* weight, T* at, int64_t step, T* factors, T* grad_x,          \
                                                   T* grad_matrix, T* grad_bias, int64_t threads) {                      \
        gradients<E>({rows, vocabulary, step, at, factors}, size, x, x_row, matrix, targets, weight, grad_x, grad_matrix, \
                     grad_bias, threads);                                                                                \
    }
#ifdef __AVX512BF16__
EXPORT(Pair, float, lowered)
#else
EXPORT(float, float, float)
EXPORT(double, double, double)
#endif
