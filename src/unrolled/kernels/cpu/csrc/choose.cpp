// What the processor is, and which of the instruction sets that this library was compiled for it has.
#include <cstring>

#if defined(HAVE_AMX_BF16) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

// Tiles of bf16 numbers. A process has to ask for the memory in which the system saves tiles: it is 8 KiB a thread.
static int has_tiles() {
    const unsigned bf16 = 1u << 22, tiles = 1u << 24;
    const long ask = 0x1023, tile_data = 18;
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & (bf16 | tiles)) != (bf16 | tiles)) return 0;
    return syscall(SYS_arch_prctl, ask, tile_data) == 0;
}
#endif

extern "C" int has_instruction_set(const char* name) {
#if defined(HAVE_AMX_BF16) && defined(__linux__)
    if (!std::strcmp(name, "amx_bf16")) {
        static const int tiles = has_tiles();
        return tiles && has_instruction_set("avx512_bf16");
    }
#endif
#ifdef HAVE_AVX512_BF16
    if (!std::strcmp(name, "avx512_bf16"))
        return has_instruction_set("avx512_vnni") && __builtin_cpu_supports("avx512bf16");
#endif
#ifdef HAVE_AVX512_VNNI
    if (!std::strcmp(name, "avx512_vnni"))
        return has_instruction_set("avx512") && __builtin_cpu_supports("avx512vnni");
#endif
#ifdef HAVE_AVX512
    if (!std::strcmp(name, "avx512"))
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
#ifdef HAVE_AVX2
    if (!std::strcmp(name, "avx2")) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
#ifdef HAVE_PLAIN
    if (!std::strcmp(name, "plain")) return 1;
#endif
    return 0;
}

extern "C" int is_amd() {
#if defined(__x86_64__) || defined(__i386__)
    return __builtin_cpu_is("amd") != 0;
#else
    return 0;
#endif
}
