// Work divided over threads.
#pragma once
#include <cstdint>
#include <thread>
#include <vector>

namespace {

// part(i, threads) for every i below threads, each in a thread of its own; the last one in this thread.
template <class F>
void in_parallel(int64_t threads, F part) {
    std::vector<std::thread> others;
    for (int64_t i = 0; i + 1 < threads; ++i) others.emplace_back([=] { part(i, threads); });
    part(threads - 1, threads);
    for (std::thread& one : others) one.join();
}

}  // namespace
