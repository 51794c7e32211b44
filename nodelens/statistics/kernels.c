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
#define NEAR 1024 /* rows of which a tile is copied: their next line is far, and often in its way */
#define AHEAD 16 /* rows from here that are fetched already */
#define SPAN 256 /* positions whose sums lie near */
#define SHIFT 17 /* leaves the exponent and six bits of a float32's mantissa */

typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t flags __attribute__((vector_size(4 * LANES)));
typedef float half __attribute__((vector_size(2 * LANES)));
typedef double wide __attribute__((vector_size(4 * LANES)));
typedef int16_t bins __attribute__((vector_size(2 * LANES)));
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

static inline wide widened(const float *at)
{
    half some; memcpy(&some, at, sizeof some);
    return __builtin_convertvector(some, wide);
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

static inline void flush(sums *total, lanes *part)
{
    for (int k = 0; k < 5; k++) { add(total[k], part[k]); part[k] = all(0); }
}

/* LANES channels of plain rows, or one channel of maps: `batch` runs of `span` values. */
typedef struct { const float *at; int64_t batch, stride, span, width, positions; } tile;

/* BODY for every vector `x` of a tile, its values `from` there, `here` of them; in the lanes beyond
   the end of a run is `rest`. FLUSH after TILE vectors, and at the end. */
#define SWEEP(BODY, FLUSH)                                                            \
    {                                                                                 \
        int64_t waiting = 0;                                                          \
        for (int64_t b = 0; b < t.batch; b++) {                                       \
            const float *from = t.at + b * t.stride, *end = from + t.span;            \
            for (; from + LANES <= end; from += LANES) {                              \
                const int64_t here = LANES; (void)here;                               \
                lanes x; memcpy(&x, from, sizeof x);                                  \
                BODY                                                                  \
                if (++waiting == TILE) { waiting = 0; FLUSH }                         \
            }                                                                         \
            if (from < end) {                                                         \
                const int64_t here = end - from;                                      \
                lanes x = load(from, here, rest);                                     \
                from = (const float *)&x;                                             \
                BODY                                                                  \
                if (++waiting == TILE) { waiting = 0; FLUSH }                         \
            }                                                                         \
        }                                                                             \
        FLUSH                                                                         \
    }

/* Sum, smallest and largest value. Plain rows are copied to `near`, if there is room for them. */
static inline void look(tile t, float *near, double *total, float *low, float *high)
{
    wide sum = {0}; wide upper = {0}; sums whole; lanes rest = {0};
    lanes smallest = all(__builtin_inff()); lanes largest = -smallest;
    SWEEP(
        __builtin_prefetch(from + AHEAD * t.stride);
        sum += widened(from); upper += widened(from + LANES / 2);
        if (near) { memcpy(near, &x, sizeof x); near += LANES; }
        if (here < LANES && t.positions > 1)
            for (int64_t j = here; j < LANES; j++) x[j] = x[0];
        smallest = choose(x < smallest, x, smallest);
        largest = choose(x > largest, x, largest);
        ,)
    memcpy(whole, &sum, sizeof sum); memcpy(whole + LANES / 2, &upper, sizeof upper);
    put(whole, total, t.width, t.positions);
    for (int64_t j = 0; j < LANES; j++) {
        int64_t own = t.positions > 1 ? 0 : j;
        if (own >= t.width) break;
        int fresh = j == own;
        low[own] = fresh || smallest[j] < low[own] ? smallest[j] : low[own];
        high[own] = fresh || largest[j] > high[own] ? largest[j] : high[own];
    }
}

/* Sums of the second power of the deviation from `centre`, with `high` to the fourth. */
static inline void powers(tile t, int high, const float *centre, double *out, int64_t channels)
{
    sums two = {0}; sums three = {0}; sums four = {0};
    lanes d2 = {0}; lanes d3 = {0}; lanes d4 = {0};
    lanes rest = t.positions > 1 ? all(*centre) : load(centre, t.width, all(0));
    lanes middle = rest;
    if (high) SWEEP(
        lanes d = x - middle; lanes square = d * d;
        d2 += square; d3 += d * square; d4 += square * square;
        ,
        add(two, d2); add(three, d3); add(four, d4); d2 = d3 = d4 = all(0);)
    else SWEEP(
        lanes d = x - middle; d2 += d * d;
        ,
        add(two, d2); d2 = all(0);)
    put(two, out, t.width, t.positions);
    if (!high) return;
    put(three, out + channels, t.width, t.positions);
    put(four, out + 2 * channels, t.width, t.positions);
}

/* Sum of absolute values, and how many are at most `eps`. */
static inline void sizes(tile t, float eps, double *total, int64_t *small)
{
    double above[LANES];
    sums sum = {0}; sums count = {0}; lanes part = {0}; flags over = {0}; lanes rest = {0};
    lanes edge = all(eps);
    SWEEP(
        lanes size = (lanes)((flags)x & 0x7fffffff);
        part += size; over -= size > edge;
        ,
        add(sum, part); part = all(0);
        for (int j = 0; j < LANES; j++) count[j] += over[j];
        over = (flags){0};)
    put(sum, total, t.width, t.positions);
    put(count, above, t.width, t.positions);
    int64_t rows = t.positions > 1 ? t.batch * t.span : t.batch;
    for (int64_t j = 0; j < t.width; j++) small[j] = rows - (int64_t)above[j];
}

/* The bin of every absolute value, its exponent and first mantissa bits; of plain rows. */
static inline void numbers(tile t, int16_t *out, int64_t channels)
{
    lanes rest = {0};
    SWEEP(
        flags number = ((flags)x & 0x7fffffff) >> SHIFT;
        int16_t *row = out + b * channels;
        if (t.width == LANES) {
            bins sixteen = __builtin_convertvector(number, bins);
            memcpy(row, &sixteen, sizeof sixteen);
        } else for (int64_t j = 0; j < t.width; j++) row[j] = (int16_t)number[j];
        ,)
}

static inline int64_t highest(float low, float high)
{
    float size = __builtin_fmaxf(__builtin_fabsf(low), __builtin_fabsf(high));
    int32_t bits;
    memcpy(&bits, &size, sizeof bits);
    return bits >> SHIFT;
}

/* From powers of the deviation from a mean rounded to float32 to those from the mean itself. */
static inline void centre(double n, double off, double *m2, int high, int64_t channels)
{
    double second = *m2, *m3 = m2 + channels, *m4 = m3 + channels;
    *m2 = second - n * off * off;
    if (!high) return;
    double third = *m3;
    *m3 = third - 3 * off * second + 2 * n * off * off * off;
    *m4 += 6 * off * off * second - 4 * off * third - 3 * n * off * off * off * off;
}

/* Everything that is asked for of every channel, while its values are near. `sum` is
   (7, channels): sum, mean, what is missing from the mean as a float, sums of the second to fourth
   power of the deviation (`order` 2 or 4), sum of sizes (`eps` from 0). `number` is (2, channels):
   the bin of the largest size, how many sizes are at most `eps`. `value` is (3, channels):
   smallest, largest, mean, which is that of a constant channel bit for bit. `binned` takes the bin
   numbers of plain rows. */
void survey(const float *values, int64_t batch, int64_t channels, int64_t positions, int threads,
            int order, float eps, double *sum, int64_t *number, float *value, int16_t *binned)
{
    double *total = sum, *exact = total + channels, *residual = exact + channels;
    double *second = residual + channels, *size = second + 3 * channels;
    int64_t *top = number, *small = top + channels;
    float *low = value, *high = low + channels, *mean = high + channels;
    double n = (double)(batch * positions);
    int64_t step = positions == 1 ? LANES : 1;

    SHARED
    for (int64_t c = 0; c < channels; c += step) {
        float near[NEAR * LANES];
        int64_t width = least(step, channels - c);
        int64_t span = positions == 1 ? width : positions;
        tile t = {values + c * positions, batch, channels * positions, span, width, positions};
        int copied = positions == 1 && batch <= NEAR;
        look(t, copied ? near : 0, total + c, low + c, high + c);
        for (int64_t j = c; j < c + width; j++) {
            exact[j] = low[j] == high[j] ? low[j] : total[j] / n;
            mean[j] = (float)exact[j];
            residual[j] = exact[j] - mean[j];
            top[j] = highest(low[j], high[j]);
        }
        if (copied) { t.at = near; t.stride = LANES; }
        if (order) {
            if (order > 2) powers(t, 1, mean + c, second + c, channels);
            else powers(t, 0, mean + c, second + c, channels);
            for (int64_t j = c; j < c + width; j++)
                centre(n, residual[j], second + j, order > 2, channels);
        }
        if (eps >= 0) sizes(t, eps, size + c, small + c);
        if (binned) numbers(t, binned + c, channels);
    }
}

/* Counts bins above the channel's `floor` in `counters` (channels, size); those below in its lowest.
   Places are worked out LANES at a time; a few channels' counters stay near. */
#define COUNT(NUMBER, WIDTH, OFFSET)                                                   \
    {                                                                                 \
        int32_t places[LANES];                                                        \
        flags place = (NUMBER) - floor;                                               \
        place = (place & (place > 0)) + (OFFSET);                                     \
        memcpy(places, &place, sizeof place);                                         \
        for (int64_t j = 0; j < (WIDTH); j++) own[places[j]]++;                       \
    }

/* Bin numbers of plain rows. */
void count_bins(const int16_t *values, int64_t batch, int64_t channels, int64_t positions,
                int threads, const int64_t *floors, int64_t size, int32_t *counters)
{
    SHARED
    for (int64_t c = 0; c < channels; c += LANES) {
        int64_t width = least(LANES, channels - c);
        int32_t *own = counters + c * size;
        flags floor = {0}, offset = {0};
        for (int64_t j = 0; j < width; j++) { floor[j] = floors[c + j]; offset[j] = j * size; }
        for (int64_t b = 0; b < batch; b++) {
            const int16_t *from = values + b * channels + c;
            bins some = {0};
            __builtin_prefetch(from + AHEAD * channels);
            if (width == LANES) {
                memcpy(&some, from, sizeof some);
                COUNT(__builtin_convertvector(some, flags), LANES, offset)
            } else {
                memcpy(&some, from, width * sizeof *from);
                COUNT(__builtin_convertvector(some, flags), width, offset)
            }
        }
    }
    (void)positions;
}

static inline void together(lanes u, lanes g, lanes *part)
{
    lanes product = u * g;
    part[0] += product;
    part[1] += (lanes)((flags)product & 0x7fffffff);
    part[2] += product * product;
    part[3] += u * u;
    part[4] += g * g;
}

/* Values u and others g of the same rows: `sum` is (5, channels) of u g, |u g|, (u g)^2, u^2 and
   g^2. With `whole` u g is that of all positions of a sample together. */
void meet(const float *values, int64_t batch, int64_t channels, int64_t positions, int threads,
          const float *others, int whole, double *sum)
{
    int64_t step = positions == 1 ? LANES : 1;

    SHARED
    for (int64_t c = 0; c < channels; c += step) {
        int64_t width = least(step, channels - c), span = positions == 1 ? width : positions;
        int64_t waiting = 0;
        sums total[5] = {{0}}; lanes part[5] = {{0}};
        double met[3] = {0};
        for (int64_t b = 0; b < batch; b++) {
            int64_t at = (b * channels + c) * positions;
            for (int64_t i = 0; i < span; i += LANES) {
                together(load(values + at + i, span - i, all(0)),
                         load(others + at + i, span - i, all(0)), part);
                if (++waiting % TILE == 0) flush(total, part);
            }
            if (!whole) continue;
            flush(total, part);
            double product;
            put(total[0], &product, 1, positions);
            met[0] += product; met[1] += __builtin_fabs(product); met[2] += product * product;
            memset(total[0], 0, sizeof total[0]);
        }
        flush(total, part);
        for (int k = 0; k < 5; k++) put(total[k], sum + k * channels + c, width, positions);
        for (int k = 0; whole && k < 3; k++) sum[k * channels + c] = met[k];
    }
}

/* Sums over the batch, at every position, of what a value is above its channel's centre, and of its
   square: `sum` is (2, channels, positions). */
void by_position(const float *values, int64_t batch, int64_t channels, int64_t positions, int threads,
                 const float *centre, double *sum)
{
    int64_t strips = (positions + SPAN - 1) / SPAN, size = channels * positions;

    SHARED
    for (int64_t k = 0; k < channels * strips; k++) {
        int64_t c = k / strips, start = k % strips * SPAN, width = least(SPAN, positions - start);
        int64_t at = c * positions + start;
        double one[SPAN] = {0}, two[SPAN] = {0};
        for (int64_t b = 0; b < batch; b++)
            for (int64_t j = 0; j < width; j++) {
                double above = (double)values[b * size + at + j] - centre[c];
                one[j] += above; two[j] += above * above;
            }
        memcpy(sum + at, one, width * sizeof *one);
        memcpy(sum + size + at, two, width * sizeof *two);
    }
}

/* Add a matrix and left * right, from left to right, to wide sums: each is moved once. */
void add_products(const float *matrix, int64_t rows, int64_t columns, int64_t depth, int threads,
                  const double *left, const double *right, double *sum)
{
    SHARED
    for (int64_t i = 0; i < rows; i++) {
        const float *from = matrix + i * columns;
        double *to = sum + i * columns, scale = left[i];
        for (int64_t j = 0; j < columns; j++) to[j] = (to[j] + from[j]) + scale * right[j];
    }
    (void)depth;
}

/* Copy what lies above the diagonal of a square matrix to below it, a tile at a time. */
void mirror(float *matrix, int64_t rows, int64_t columns, int64_t depth, int threads)
{
    SHARED
    for (int64_t top = 0; top < rows; top += LANES)
        for (int64_t left = top; left < columns; left += LANES)
            for (int64_t j = left; j < least(left + LANES, columns); j++)
                for (int64_t i = top; i < least(top + LANES, j); i++)
                    matrix[j * columns + i] = matrix[i * columns + j];
    (void)depth;
}

/* Values of maps. */
void count_values(const float *values, int64_t batch, int64_t channels, int64_t positions,
                  int threads, const int64_t *floors, int64_t size, int32_t *counters)
{
    SHARED
    for (int64_t c = 0; c < channels; c++) {
        int32_t *own = counters + c * size;
        flags floor = (flags){0} + (int32_t)floors[c], none = {0};
        lanes rest = {0};
        tile t = {values + c * positions, batch, channels * positions, positions, 1, positions};
        SWEEP(COUNT(((flags)x & 0x7fffffff) >> SHIFT, here, none),)
    }
}
