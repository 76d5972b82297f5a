// Gradients of attention.h.
#pragma once
#include "attention.h"

namespace {

template <class T>
struct AttentionGrads {
    Rows<T> q, k, v;  // those of k and v zeros
    T* level;         // (batch, keys, heads) zeros, or null
};

// One row: the weights p anew from products s, and from products dp = dy v' the gradient of the scores, in place of dp.
template <class T>
void score_gradients(const Asked<T>& a, const Seen<T>& seen, T* s, T* dp, int64_t wide, int64_t base, const T* level, T own,
                     T lse, T less, T* of_level, T* of_own) {
    T total = 0;
    for (int r = 0; r < 2; ++r) {
        const Run run = seen.runs[r];
        const bool levels = r && level;
        finish_scores(s + run.low, run.count, a.scale, levels ? level + base + run.low : nullptr, own);
        if (run.count) weights(s + run.low, run.count, lse);
        typename Simd<T>::Register sum = {};
        columns_of<T>(run.low, run.low + run.count, [&](int64_t i, Lanes<T> lanes) {
            const auto d = lanes.load(s + i) * (lanes.load(dp + i) - less);
            lanes.store(dp + i, d);
            if (!levels) return;
            sum += lanes.load(dp + i);
            lanes.store(of_level + base + i, lanes.load(of_level + base + i) - lanes.load(dp + i));
        });
        total += sum_of<T>(sum);
    }
    if (of_own) *of_own += total;
    seen.clear_rest(s, wide);
    seen.clear_rest(dp, wide);
}

// lse, grad_lse: (batch, steps, heads), the latter may be null.
template <class T>
void attend_back(const Asked<T>& a, Rows<const T> y, const T* lse, Rows<const T> grad, const T* grad_lse,
                 const AttentionGrads<T>& to, int64_t threads) {
    const Counts& n = a.n;
    in_parallel(threads, [=](int64_t part, int64_t parts) {
        const int64_t shared = n.heads / n.groups, wide = up_to(n.keys, panel_width<T>());
        std::vector<T> memory;
        const auto size = [](int64_t k, int64_t m) { return int64_t(packed_size<T>(k, m)); };
        const int64_t across = size(n.size, n.keys), down = size(n.keys, n.size), turned = size(n.values, n.keys);
        T* at = room<T>(memory, wide * (2 * QUERIES + 2) + across + down + turned + size(QUERIES, n.size) +
                                    size(QUERIES, n.values));
        T *s = at, *dp = s + wide * QUERIES, *level_room = dp + wide * QUERIES, *of_level = level_room + wide;
        T* packs = of_level + wide;
        Packed<T> keys = {packs, n.size, n.keys}, rows = {packs + across, n.keys, n.size};
        Packed<T> values = {packs + across + down, n.values, n.keys};
        T *const query_room = values.at + turned, *const grad_room = query_room + size(QUERIES, n.size);
        for (int64_t task = n.batch * n.groups * part / parts; task < n.batch * n.groups * (part + 1) / parts; ++task) {
            const int64_t b = task / n.groups, g = task % n.groups;
            keys.fill(a.k.of(b, 0, g), 1, a.k.step);
            rows.fill(a.k.of(b, 0, g), a.k.step, 1);
            values.fill(a.v.of(b, 0, g), 1, a.v.step);
            for (int64_t h = g * shared; h < (g + 1) * shared; ++h) {
                const T* level = levels_of(a, b, h, level_room);
                std::fill(of_level, of_level + wide, T(0));
                for (int64_t t = 0; t < n.steps; t += QUERIES) {
                    const Block<T> block(a, b, t, h);
                    Packed<T> queries = {query_room, block.count, n.size}, grads = {grad_room, block.count, n.values};
                    queries.fill(a.q.of(b, t, h), a.q.step, 1);
                    grads.fill(grad.of(b, t, h), grad.step, 1);
                    product_part<T, false>(block.count, a.q.of(b, t, h), a.q.step, keys, 0, n.size, block.base, block.end, s,
                                           wide, false);
                    product_part<T, false>(block.count, grad.of(b, t, h), grad.step, values, 0, n.values, block.base,
                                           block.end, dp, wide, false);
                    for (int64_t i = 0; i < block.count; ++i) {
                        const int64_t place = (b * n.steps + t + i) * n.heads + h, own = a.high(t + i) - 1;
                        const T less = dot(y.of(b, t + i, h), grad.of(b, t + i, h), n.values) - (grad_lse ? grad_lse[place] : 0);
                        score_gradients(a, Seen<T>(a, b, t + i, h, block.base), s + i * wide, dp + i * wide, block.keys(),
                                        block.base, level, level ? level[own] : 0, lse[place], less, of_level,
                                        level ? of_level + own : nullptr);
                    }
                    // of the values p' dy, of the keys ds' q and of the queries ds k, the last two times the scale
                    product_part<T, true>(block.keys(), s, wide, grads, 0, block.count, 0, n.values,
                                          to.v.of(b, block.base, g), to.v.step, true);
                    for (int64_t i = 0; i < block.count; ++i)
                        columns_of<T>(0, block.keys(), [&](int64_t j, Lanes<T> lanes) {
                            lanes.store(dp + i * wide + j, lanes.load(dp + i * wide + j) * a.scale);
                        });
                    product_part<T, true>(block.keys(), dp, wide, queries, 0, block.count, 0, n.size,
                                          to.k.of(b, block.base, g), to.k.step, true);
                    product_part<T, false>(block.count, dp, wide, rows, block.base, block.keys(), 0, n.size,
                                           to.q.of(b, t, h), to.q.step, false);
                }
                if (to.level)
                    for (int64_t j = 0; j < n.keys; ++j) to.level[(b * n.keys + j) * n.heads + h] = of_level[j];
            }
        }
    });
}

}  // namespace
