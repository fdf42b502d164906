/* One more value of a weighted sum, in one pass over it: what numpy does in two for fp32 and three
 * for bf16, with the same bits. Elementwise, in order, each product rounded before it is added:
 * compile with -ffp-contract=off (kernel.py does, and tries what it loads). C11, no intrinsics; on
 * x86-64 with glibc the loader picks the widest vectors that the processor has. */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h> /* of it only __GLIBC__: other C libraries have no such choice at load time */
#include <string.h>

#if defined(__x86_64__) && defined(__GLIBC__)
#define FOR_EACH_CPU __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_CPU
#endif

/* What kernel.py expects to find; another number means another set of functions or arguments. */
int fedtrain_kernel_version(void) { return 1; }

static inline float of_bf16(uint16_t bits) {
    uint32_t word = (uint32_t)bits << 16;
    float wide;
    memcpy(&wide, &word, sizeof wide);
    return wide;
}

/* first: the partial sum becomes the product, whatever it was before (so -0.0 stays -0.0). */
FOR_EACH_CPU
void fedtrain_add_fp32(float *restrict partial, const float *restrict value, size_t count,
                       float weight, int first) {
    if (first)
        for (size_t i = 0; i < count; i++) partial[i] = value[i] * weight;
    else
        for (size_t i = 0; i < count; i++) partial[i] += value[i] * weight;
}

FOR_EACH_CPU
void fedtrain_add_bf16(float *restrict partial, const uint16_t *restrict value, size_t count,
                       float weight, int first) {
    if (first)
        for (size_t i = 0; i < count; i++) partial[i] = of_bf16(value[i]) * weight;
    else
        for (size_t i = 0; i < count; i++) partial[i] += of_bf16(value[i]) * weight;
}
