// Causal attention: each query sees a run of keys that ends at its own, and those that all see.
//
// A block of queries takes all of its scores at once, their weights, and the sums of values; the weights are made anew on the
// way back from the logarithm of their sum. Keys and values are packed once for all queries of a sequence and a group of
// heads, which is what one thread takes.
#pragma once
#include <algorithm>

#include "lanes.h"
#include "product.h"
#include "threads.h"

namespace {

constexpr int64_t QUERIES = 32;  // of a block
constexpr int64_t FEW = 4;       // fewer queries than that read keys and values as they lie

// (batch, steps, heads, n), n side by side.
template <class T>
struct Rows {
    T* at;
    int64_t batch, step, head;
    T* of(int64_t b, int64_t t, int64_t h) const { return at + b * batch + t * step + h * head; }
};

// keys: how many, those of the queries last. groups: heads of keys. always: keys at the front that all queries see.
struct Counts {
    int64_t batch, steps, keys, heads, groups, size, values, always;
};

template <class T>
struct Asked {
    Counts n;
    Rows<const T> q, k, v;
    const T* level;        // (batch, keys, heads) or null: what is added to a score is that of the query less the key's
    const int64_t* first;  // (batch, steps, 1 or heads) or null: the first key that a query sees
    T scale;
    bool apart;  // whether it is said of each head

    int64_t low(int64_t b, int64_t t, int64_t h) const {
        if (!first) return n.always;
        const int64_t place = b * n.steps + t;
        return std::max(first[apart ? place * n.heads + h : place], n.always);
    }
    int64_t high(int64_t t) const { return n.keys - n.steps + t + 1; }  // one past the last
};

inline int64_t up_to(int64_t x, int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }

// A matrix (depth, n) packed in panels, of which products take any rows and whole panels.
template <class T>
struct Packed {
    T* at;
    int64_t depth, n;

    void fill(const T* from, int64_t row, int64_t column) { pack(from, row, column, depth, n, at); }
};

// c (rows, columns low to high) = a (rows, k) times k rows of the packed matrix from `first` on, + c where `more`. low is at
// the beginning of a panel, high at the end of one or of the matrix. TURNED: element (r, i) of a is a[i * a_row + r].
template <class T, bool TURNED>
void product_part(int64_t rows, const T* a, int64_t a_row, const Packed<T>& b, int64_t first, int64_t k, int64_t low,
                  int64_t high, T* c, int64_t c_row, bool more) {
    constexpr int64_t lanes = Simd<T>::lanes;
    const int64_t tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    for (int64_t j = low; j < high; j += panel_width<T>()) {
        const int64_t left = std::min<int64_t>(b.n - j, panel_width<T>());
        const int64_t vectors = (left + lanes - 1) / lanes, width = vectors * lanes;
        const T* panel = b.at + j * b.depth + first * width;
        for (int64_t from = 0; from < k; from += BLOCK) {
            const int64_t depth = std::min<int64_t>(k - from, BLOCK);
            for (int64_t part = 0; part < tiles; ++part) {
                const int64_t row = rows * part / tiles, count = rows * (part + 1) / tiles - row;
                T* to = c + row * c_row + (j - low);
                const T* left_side = TURNED ? a + row + from * a_row : a + row * a_row + from;
                const T* right = panel + from * width;
                tile_of<T, TURNED>(int(count), int(vectors), left_side, a_row, right, from || more ? to : nullptr, c_row, to,
                                   c_row, depth, int(left), reinterpret_cast<const char*>(right), 0);
            }
        }
    }
}

template <class T>
inline T sum_of(typename Simd<T>::Register x) {
    T lane[Simd<T>::lanes], total = 0;
    Simd<T>::store(lane, x);
    for (int l = 0; l < Simd<T>::lanes; ++l) total += lane[l];
    return total;
}

template <class T>
inline T dot(const T* x, const T* y, int64_t n) {
    typename Simd<T>::Register total = {};
    columns_of<T>(0, n, [&](int64_t i, Lanes<T> lanes) { total += lanes.load(x + i) * lanes.load(y + i); });
    return sum_of<T>(total);
}

// Scores s[j - base] of the keys from `low` to `high` become finished: scaled, with the difference of levels.
template <class T>
void finish_scores(T* s, int64_t count, T scale, const T* level, T own) {
    columns_of<T>(0, count, [&](int64_t i, Lanes<T> lanes) {
        auto x = lanes.load(s + i) * scale;
        if (level) x += own - lanes.load(level + i);
        lanes.store(s + i, x);
    });
}

template <class T>
T largest(const T* s, int64_t count, T found) {
    for (int64_t i = 0; i < count; ++i) found = s[i] > found ? s[i] : found;
    return found;
}

// s becomes e^(s - less); its sum. A weight far below the least that a sum of weights near one can feel is zero: it would
// slow all that it is multiplied by, for being subnormal.
template <class T>
T weights(T* s, int64_t count, T less) {
    const T least = sizeof(T) == 4 ? T(-60) : T(-500);
    typename Simd<T>::Register total = {}, zero = {};
    columns_of<T>(0, count, [&](int64_t i, Lanes<T> lanes) {
        const auto x = lanes.load(s + i) - less;
        lanes.store(s + i, x < least ? zero : whole_exponential(x));
        total += lanes.load(s + i);  // lanes beyond the last count nothing
    });
    return sum_of<T>(total);
}

constexpr double NOTHING = -1e30;  // logarithm of the sum where a query sees no key

// The runs of keys that a query sees, as parts of a row that begins at key `base`.
struct Run {
    int64_t low, count;
};

template <class T>
struct Seen {
    Run runs[2];
    Seen(const Asked<T>& a, int64_t b, int64_t t, int64_t h, int64_t base) {
        const int64_t low = a.low(b, t, h);
        runs[0] = {0, a.n.always};
        runs[1] = {low - base, std::max<int64_t>(0, a.high(t) - low)};
    }
    // What is not seen, up to `wide`, is zero.
    void clear_rest(T* s, int64_t wide) const {
        const auto zero = [=](int64_t low, int64_t high) {
            if (high > low) std::memset(s + low, 0, size_t(high - low) * sizeof(T));
        };
        const int64_t start = runs[1].count ? runs[1].low : wide;
        zero(runs[0].count, std::min(start, wide));
        if (runs[1].count) zero(runs[1].low + runs[1].count, wide);
    }
};

// The row of products q k' of one query becomes weights that sum to one; the logarithm of their sum.
template <class T>
T weigh(const Asked<T>& a, const Seen<T>& seen, T* s, int64_t wide, int64_t base, const T* level, T own) {
    T top = T(NOTHING);
    for (int r = 0; r < 2; ++r) {
        const Run run = seen.runs[r];
        finish_scores(s + run.low, run.count, a.scale, r && level ? level + base + run.low : nullptr, own);
        top = largest(s + run.low, run.count, top);
    }
    T total = 0;
    for (const Run run : seen.runs) total += weights(s + run.low, run.count, top);
    seen.clear_rest(s, wide);
    if (total == 0) return T(NOTHING);
    const T share = 1 / total;
    for (const Run run : seen.runs)
        for (int64_t i = run.low; i < run.low + run.count; ++i) s[i] *= share;
    return top + std::log(total);
}

template <class T>
struct Block {
    int64_t t, count, base, end;  // queries from t on; keys from base to end, at borders of panels
    Block(const Asked<T>& a, int64_t b, int64_t t, int64_t h) : t(t), count(std::min(QUERIES, a.n.steps - t)) {
        int64_t low = a.n.always ? 0 : a.n.keys;
        for (int64_t i = 0; i < count && low; ++i) low = std::min(low, a.low(b, t + i, h));
        base = std::min(low, a.high(t + count - 1) - 1) / panel_width<T>() * panel_width<T>();
        end = std::min(a.n.keys, up_to(a.high(t + count - 1), panel_width<T>()));
    }
    int64_t keys() const { return end - base; }
};

// Levels of one head side by side.
template <class T>
const T* levels_of(const Asked<T>& a, int64_t b, int64_t h, T* to) {
    if (!a.level) return nullptr;
    for (int64_t j = 0; j < a.n.keys; ++j) to[j] = a.level[(b * a.n.keys + j) * a.n.heads + h];
    return to;
}

// A few queries of one head, each by itself.
template <class T>
void attend_few(const Asked<T>& a, int64_t b, int64_t h, const T* level, T* s, Rows<T> y, T* lse) {
    const int64_t g = h / (a.n.heads / a.n.groups);
    for (int64_t t = 0; t < a.n.steps; ++t) {
        const Seen<T> seen(a, b, t, h, 0);
        for (const Run run : seen.runs)
            for (int64_t j = run.low; j < run.low + run.count; ++j) s[j] = dot(a.q.of(b, t, h), a.k.of(b, j, g), a.n.size);
        T* out = y.of(b, t, h);
        lse[(b * a.n.steps + t) * a.n.heads + h] = weigh(a, seen, s, a.n.keys, 0, level, level ? level[a.high(t) - 1] : 0);
        columns_of<T>(0, a.n.values, [&](int64_t i, Lanes<T> lanes) {
            typename Simd<T>::Register total = {};
            for (const Run run : seen.runs)
                for (int64_t j = run.low; j < run.low + run.count; ++j) total += s[j] * lanes.load(a.v.of(b, j, g) + i);
            lanes.store(out + i, total);
        });
    }
}

// y: (batch, steps, heads, values); lse: (batch, steps, heads).
template <class T>
void attend(const Asked<T>& a, Rows<T> y, T* lse, int64_t threads) {
    const Counts& n = a.n;
    in_parallel(threads, [=](int64_t part, int64_t parts) {
        const int64_t shared = n.heads / n.groups, wide = up_to(n.keys, panel_width<T>());
        std::vector<T> memory, packs;
        T* s = room<T>(memory, wide * (QUERIES + 1));
        T* const level_room = s + wide * QUERIES;
        Packed<T> keys = {nullptr, n.size, n.keys}, values = {nullptr, n.keys, n.values};
        if (n.steps >= FEW) {
            keys.at = room<T>(packs, int64_t(packed_size<T>(n.size, n.keys) + packed_size<T>(n.keys, n.values)));
            values.at = keys.at + packed_size<T>(n.size, n.keys);
        }
        for (int64_t task = n.batch * n.groups * part / parts; task < n.batch * n.groups * (part + 1) / parts; ++task) {
            const int64_t b = task / n.groups, g = task % n.groups;
            if (keys.at) {
                keys.fill(a.k.of(b, 0, g), 1, a.k.step);
                values.fill(a.v.of(b, 0, g), a.v.step, 1);
            }
            for (int64_t h = g * shared; h < (g + 1) * shared; ++h) {
                const T* level = levels_of(a, b, h, level_room);
                if (!keys.at) {
                    attend_few(a, b, h, level, s, y, lse);
                    continue;
                }
                for (int64_t t = 0; t < n.steps; t += QUERIES) {
                    const Block<T> block(a, b, t, h);
                    product_part<T, false>(block.count, a.q.of(b, t, h), a.q.step, keys, 0, n.size, block.base, block.end, s,
                                           wide, false);
                    for (int64_t i = 0; i < block.count; ++i)
                        lse[(b * n.steps + t + i) * n.heads + h] =
                            weigh(a, Seen<T>(a, b, t + i, h, block.base), s + i * wide, block.keys(), block.base, level,
                                  level ? level[a.high(t + i) - 1] : 0);
                    product_part<T, false>(block.count, s, wide, values, block.base, block.keys(), 0, n.values,
                                           y.of(b, t, h), y.step, false);
                }
            }
        }
    });
}

}  // namespace
