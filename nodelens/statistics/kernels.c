/* Sums over rows of every channel, each value read once, from float32 that lies in one piece.

   A value is x[(b * channels + c) * positions + p]; plain rows have one position. Threads share the
   channels, so that a channel's sums are added in the same order however many there are; they are
   torch's own, found through OpenMP, since other threads would wait for those to stop spinning.
   Sums of values are double throughout; of deviations and sizes a few are added in float32, then
   those in double. Built without -ffast-math: NaN and infinity must reach the sums; and without
   fused multiply-adds: a sum is the same, bit for bit, whatever is summed beside it. */

#include <stdint.h>
#include <string.h>

#define LANES 16
#define TILE 16  /* vectors that are added in float32 before they are added in double */
#define SHIFT 17 /* leaves the exponent and six bits of a float32's mantissa */

typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t flags __attribute__((vector_size(4 * LANES)));
typedef double wide __attribute__((vector_size(8 * LANES)));
typedef double sums[LANES];

#ifdef _OPENMP
#define SHARED _Pragma("omp parallel for schedule(static) num_threads(threads) if(threads > 1)")
#else
#define SHARED
#endif

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static inline lanes all(float value)
{
    lanes same;
    for (int j = 0; j < LANES; j++) same[j] = value;
    return same;
}

/* Up to LANES values; the lanes beyond `width` hold `rest`. */
static inline lanes load(const float *at, int64_t width, lanes rest)
{
    if (width >= LANES) memcpy(&rest, at, sizeof rest);
    else for (int64_t j = 0; j < width; j++) rest[j] = at[j];
    return rest;
}

static inline lanes choose(flags one, lanes a, lanes b)
{
    return (lanes)((one & (flags)a) | (~one & (flags)b));
}

static inline void add(double *sum, lanes part)
{
    for (int j = 0; j < LANES; j++) sum[j] += part[j];
}

/* With plain rows a lane is a channel; with maps all lanes are one channel's positions. */
static inline void put(const double *sum, double *out, int64_t width, int64_t positions)
{
    double whole = 0;
    for (int j = 0; j < LANES; j++) whole += sum[j];
    if (positions > 1) *out = whole;
    else memcpy(out, sum, width * sizeof *out);
}

/* For every LANES channels, or every one of maps: BEFORE, then BODY for every vector `x` of its
   values (in the lanes beyond the last position: `rest`), FLUSH every TILE of them, AFTER. */
#define SWEEP(BEFORE, BODY, FLUSH, AFTER)                                             \
    int64_t step = positions == 1 ? LANES : 1;                                        \
    SHARED                                                                            \
    for (int64_t c = 0; c < channels; c += step) {                                    \
        int64_t width = positions == 1 ? least(LANES, channels - c) : 1;              \
        int64_t span = positions == 1 ? width : positions;                            \
        int64_t waiting = 0;                                                          \
        BEFORE                                                                        \
        for (int64_t b = 0; b < batch; b++) {                                         \
            const float *at = values + (b * channels + c) * positions;                \
            for (int64_t p = 0; p < span; p += LANES) {                               \
                int64_t here = least(LANES, span - p);                                \
                (void)here;                                                           \
                lanes x = load(at + p, span - p, rest);                               \
                BODY                                                                  \
                if (++waiting == TILE) { waiting = 0; FLUSH }                         \
            }                                                                         \
        }                                                                             \
        FLUSH                                                                         \
        AFTER                                                                         \
    }

/* Smallest and largest value; sum, mean, and what is missing from the mean as a float, which is
   that of a constant channel bit for bit. `out` is (2, channels), `in_float` (3, channels). */
void first_look(const float *values, int64_t batch, int64_t channels, int64_t positions,
                int threads, double *out, float *in_float)
{
    double *total = out; double *residual = out + channels;
    float *low = in_float; float *high = low + channels; float *mean = high + channels;

    SWEEP(
        wide sum = {0}; sums whole; lanes rest = {0};
        lanes smallest = all(__builtin_inff()); lanes largest = -smallest;
        ,
        sum += __builtin_convertvector(x, wide);
        if (here < LANES && positions > 1)
            for (int64_t j = here; j < LANES; j++) x[j] = x[0];
        smallest = choose(x < smallest, x, smallest);
        largest = choose(x > largest, x, largest);
        ,
        ,
        memcpy(whole, &sum, sizeof whole);
        put(whole, total + c, width, positions);
        for (int64_t j = 0; j < LANES; j++) {
            if (positions == 1 && j >= width) break;
            int64_t own = positions == 1 ? c + j : c;
            int fresh = positions == 1 || j == 0;
            low[own] = fresh || smallest[j] < low[own] ? smallest[j] : low[own];
            high[own] = fresh || largest[j] > high[own] ? largest[j] : high[own];
        })
    for (int64_t c = 0; c < channels; c++) {
        double exact = low[c] == high[c] ? low[c] : total[c] / (double)(batch * positions);
        mean[c] = (float)exact;
        residual[c] = exact - mean[c];
    }
}

/* Sums of the first two powers of the deviation from `centre`; `out` is (2, channels). */
void two_powers(const float *values, int64_t batch, int64_t channels, int64_t positions,
                int threads, const float *centre, double *out)
{
    SWEEP(
        sums one = {0}; sums two = {0}; lanes d1 = {0}; lanes d2 = {0};
        lanes rest = positions > 1 ? all(centre[c]) : load(centre + c, width, all(0));
        lanes middle = rest;
        ,
        lanes d = x - middle; d1 += d; d2 += d * d;
        ,
        add(one, d1); add(two, d2); d1 = d2 = all(0);
        ,
        put(one, out + c, width, positions);
        put(two, out + channels + c, width, positions);)
}

/* Sums of the first four powers; `out` is (4, channels). */
void four_powers(const float *values, int64_t batch, int64_t channels, int64_t positions,
                 int threads, const float *centre, double *out)
{
    SWEEP(
        sums one = {0}; sums two = {0}; sums three = {0}; sums four = {0};
        lanes d1 = {0}; lanes d2 = {0}; lanes d3 = {0}; lanes d4 = {0};
        lanes rest = positions > 1 ? all(centre[c]) : load(centre + c, width, all(0));
        lanes middle = rest;
        ,
        lanes d = x - middle; lanes square = d * d;
        d1 += d; d2 += square; d3 += d * square; d4 += square * square;
        ,
        add(one, d1); add(two, d2); add(three, d3); add(four, d4); d1 = d2 = d3 = d4 = all(0);
        ,
        put(one, out + c, width, positions);
        put(two, out + channels + c, width, positions);
        put(three, out + 2 * channels + c, width, positions);
        put(four, out + 3 * channels + c, width, positions);)
}

/* Sum of absolute values, and how many are larger than `eps`. */
void sizes(const float *values, int64_t batch, int64_t channels, int64_t positions,
           int threads, float eps, double *total, double *above)
{
    SWEEP(
        sums sum = {0}; sums count = {0}; lanes part = {0}; flags over = {0}; lanes rest = {0};
        lanes edge = all(eps);
        ,
        lanes size = (lanes)((flags)x & 0x7fffffff);
        part += size; over -= size > edge;
        ,
        add(sum, part); part = all(0);
        for (int j = 0; j < LANES; j++) count[j] += over[j];
        over = (flags){0};
        ,
        put(sum, total + c, width, positions);
        put(count, above + c, width, positions);)
}

/* The bin of every absolute value: its exponent and first mantissa bits. */
void bin_numbers(const int32_t *values, int64_t count, int threads, int16_t *out)
{
    SHARED
    for (int64_t i = 0; i < count; i++) out[i] = (int16_t)((values[i] & 0x7fffffff) >> SHIFT);
}

/* Counts bins in `counters` (channels, bins); those below the channel's `floor` in its lowest.
   A few channels at a time, so that their counters stay near. */
#define COUNT(NUMBER)                                                                   \
    int64_t step = positions == 1 ? 32 : 1;                                             \
    SHARED                                                                              \
    for (int64_t c = 0; c < channels; c += step) {                                      \
        int64_t width = positions == 1 ? least(step, channels - c) : 1;                 \
        for (int64_t b = 0; b < batch; b++)                                             \
            for (int64_t j = 0; j < width; j++)                                         \
                for (int64_t p = 0; p < positions; p++) {                               \
                    int64_t i = (b * channels + c + j) * positions + p;                 \
                    int64_t place = (NUMBER) - floors[c + j];                           \
                    counters[(c + j) * bins + (place < 0 ? 0 : place)]++;               \
                }                                                                       \
    }

void count_values(const int32_t *values, int64_t batch, int64_t channels, int64_t positions,
                  int threads, const int64_t *floors, int64_t bins,
                  int32_t *counters)
{
    COUNT((values[i] & 0x7fffffff) >> SHIFT)
}

void count_bins(const int16_t *values, int64_t batch, int64_t channels, int64_t positions,
                int threads, const int64_t *floors, int64_t bins,
                int32_t *counters)
{
    COUNT(values[i])
}
