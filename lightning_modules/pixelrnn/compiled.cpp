// All of a wave's arithmetic but its matrix products, forward and backward; compiled.py calls it once a wave.
//
// Letters as there: D directions, B images, M cells of the map, N of them in the order of the waves, h features, P
// neighbours that a cell reads. A slot is where a state waits for the cell of the next wave that reads it; the cell
// in slot s hands its state to slots s + offsets[p], as their neighbour p. E is float, or uint16_t that holds a bf16.

#include <cstdint>
#include <cstring>
#include <vector>

struct Pass {
    int64_t directions, batch, map_cells, cells, hidden, slots, neighbours, row, threads, bf16;
    const int64_t *offsets, *reads, *writes;  // (P), (D, N), (D, N): map cells, −1 for none
    void* gates;           // (B·M, row): each row D·4h, o f i g, and padding; pre-activations of x, then gates
    const float* bias;     // (D, 4h)
    void* product;         // (D, wave, B, 4h): the neighbours' part of the pre-activations, or d of all of them
    void* states;          // (D, slots, B, P·h): what is handed on, or (backward) d of it
    float* cell;           // (D, slots, B, h): cell states, or d of them
    void* neighbours_seen; // (B·M, D, P·h): the states that each cell read
    float* before;         // (B·M, D, h): the cell state that each cell started from
    void* output;          // (B, M, h): hidden states, the directions' sum; or (backward) d of it
    void* d_gates;         // as gates
    float* d_bias;         // (B, D, 4h)
};

static inline float load(const float* p) { return *p; }
static inline void store(float* p, float value) { *p = value; }

static inline float load(const uint16_t* p) {
    uint32_t bits = (uint32_t)*p << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static inline void store(uint16_t* p, float value) {  // to the nearest, ties to even; a NaN stays one
    uint32_t bits;
    memcpy(&bits, &value, 4);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    *p = (uint16_t)(value != value ? 0x7fc0u : rounded);
}

// e^y = scale · (1 + rest), |y| ≤ 87; the comparisons are false for a NaN, and rest is then one.
static inline void exponential(float y, float& scale, float& rest) {
    y = y < -87.f ? -87.f : y;
    y = y > 87.f ? 87.f : y;
    float n = __builtin_rintf(y * 1.44269504f);
    float r = y - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float q = 1.f / 5040;
    q = q * r + 1.f / 720;
    q = q * r + 1.f / 120;
    q = q * r + 1.f / 24;
    q = q * r + 1.f / 6;
    q = q * r + 0.5f;
    rest = r + r * r * q;
    int32_t bits = ((int32_t)n + 127) << 23;
    memcpy(&scale, &bits, 4);
}

static inline float sigmoid(float x) {
    float scale, rest;
    exponential(-x, scale, rest);
    return 1.f / (1.f + scale + scale * rest);
}

static inline float tanh_of(float x) {  // (e^2x − 1) / (e^2x + 1), exact near 0
    float scale, rest;
    exponential(x > 20.f ? 40.f : 2 * x, scale, rest);
    float less_one = scale * rest + (scale - 1.f);
    return less_one / (less_one + 2.f);
}

template <class E>
static void cell_forward(int64_t h, E* __restrict__ gates, const E* __restrict__ product, const float* __restrict__ bias,
                         float* __restrict__ cell, float* __restrict__ before, E* __restrict__ hidden) {
#pragma GCC ivdep
    for (int64_t k = 0; k < h; k++) {
        float o = sigmoid(load(gates + k) + load(product + k) + bias[k]);
        float f = sigmoid(load(gates + h + k) + load(product + h + k) + bias[h + k]);
        float i = sigmoid(load(gates + 2 * h + k) + load(product + 2 * h + k) + bias[2 * h + k]);
        float g = tanh_of(load(gates + 3 * h + k) + load(product + 3 * h + k) + bias[3 * h + k]);
        store(gates + k, o);
        store(gates + h + k, f);
        store(gates + 2 * h + k, i);
        store(gates + 3 * h + k, g);
        before[k] = cell[k];
        cell[k] = f * cell[k] + i * g;
        store(hidden + k, o * tanh_of(cell[k]));
    }
}

template <class E>
static void cell_backward(int64_t h, const E* __restrict__ gates, const float* __restrict__ before,
                          const float* __restrict__ d_hidden, float* __restrict__ d_cell, E* __restrict__ d_gates,
                          E* __restrict__ d_product, float* __restrict__ d_bias) {
#pragma GCC ivdep
    for (int64_t k = 0; k < h; k++) {
        float o = load(gates + k), f = load(gates + h + k), i = load(gates + 2 * h + k), g = load(gates + 3 * h + k);
        float t = tanh_of(f * before[k] + i * g), d = d_cell[k] + d_hidden[k] * o * (1 - t * t);
        float d_o = d_hidden[k] * t * o * (1 - o), d_f = d * before[k] * f * (1 - f);
        float d_i = d * g * i * (1 - i), d_g = d * i * (1 - g * g);
        d_cell[k] = d * f;
        d_bias[k] += d_o;
        d_bias[h + k] += d_f;
        d_bias[2 * h + k] += d_i;
        d_bias[3 * h + k] += d_g;
        store(d_gates + k, d_o);
        store(d_gates + h + k, d_f);
        store(d_gates + 2 * h + k, d_i);
        store(d_gates + 3 * h + k, d_g);
        store(d_product + k, d_o);
        store(d_product + h + k, d_f);
        store(d_product + 2 * h + k, d_i);
        store(d_product + 3 * h + k, d_g);
    }
}

// Calls work(image, direction, number in the wave, slot's row, map cell's row, map cell that the output goes to).
template <class Work>
static inline void each_cell(const Pass& p, int64_t b, int64_t start, int64_t first, int64_t count, Work work) {
    for (int64_t d = 0; d < p.directions; d++)
        for (int64_t j = 0; j < count; j++) {
            int64_t at = d * p.cells + start + j;
            work(d, j, first + j, b * p.map_cells + p.reads[at], p.writes[at]);
        }
}

// The wave of `count` cells in slots from `first` on, whose places in reads and writes begin at `start`.
template <class E>
static void forward(const Pass& p, int64_t start, int64_t first, int64_t count) {
    int64_t h = p.hidden, parts = p.neighbours * h;
#pragma omp parallel for num_threads(p.threads) schedule(static) if (p.threads > 1)
    for (int64_t b = 0; b < p.batch; b++) {
        std::vector<E> hidden(h);
        auto slot_row = [&](int64_t d, int64_t slot) { return (d * p.slots + slot) * p.batch + b; };
        E *states = (E*)p.states, *seen = (E*)p.neighbours_seen;
        each_cell(p, b, start, first, count, [&](int64_t d, int64_t, int64_t slot, int64_t row, int64_t) {
            memcpy(seen + (row * p.directions + d) * parts, states + slot_row(d, slot) * parts, parts * sizeof(E));
        });
        each_cell(p, b, start, first, count, [&](int64_t d, int64_t j, int64_t slot, int64_t row, int64_t write) {
            cell_forward<E>(h, (E*)p.gates + row * p.row + d * 4 * h,
                            (const E*)p.product + ((d * count + j) * p.batch + b) * 4 * h, p.bias + d * 4 * h,
                            p.cell + slot_row(d, slot) * h, p.before + (row * p.directions + d) * h, hidden.data());
            for (int64_t n = 0; n < p.neighbours; n++) {
                int64_t to = slot + p.offsets[n];
                if (to >= 0 && to < p.slots)
                    memcpy(states + slot_row(d, to) * parts + n * h, hidden.data(), h * sizeof(E));
            }
            if (write < 0) return;
            E *__restrict__ out = (E*)p.output + (b * p.map_cells + write) * h, *__restrict__ mine = hidden.data();
            for (int64_t k = 0; k < h; k++) store(out + k, load(out + k) + load(mine + k));
        });
    }
}

template <class E>
static void backward(const Pass& p, int64_t start, int64_t first, int64_t count) {
    int64_t h = p.hidden, parts = p.neighbours * h;
#pragma omp parallel for num_threads(p.threads) schedule(static) if (p.threads > 1)
    for (int64_t b = 0; b < p.batch; b++) {
        std::vector<float> sum(h);
        auto slot_row = [&](int64_t d, int64_t slot) { return (d * p.slots + slot) * p.batch + b; };
        each_cell(p, b, start, first, count, [&](int64_t d, int64_t j, int64_t slot, int64_t row, int64_t write) {
            float* __restrict__ d_hidden = sum.data();
            const E* __restrict__ wanted = (const E*)p.output + (b * p.map_cells + write) * h;
            if (write < 0) memset(d_hidden, 0, h * sizeof(float));
            else
                for (int64_t k = 0; k < h; k++) d_hidden[k] = load(wanted + k);
            for (int64_t n = 0; n < p.neighbours; n++) {
                int64_t to = slot + p.offsets[n];
                if (to < 0 || to >= p.slots) continue;
                const E* __restrict__ handed = (const E*)p.states + slot_row(d, to) * parts + n * h;
                for (int64_t k = 0; k < h; k++) d_hidden[k] += load(handed + k);
            }
            cell_backward<E>(h, (const E*)p.gates + row * p.row + d * 4 * h, p.before + (row * p.directions + d) * h,
                             d_hidden, p.cell + slot_row(d, slot) * h, (E*)p.d_gates + row * p.row + d * 4 * h,
                             (E*)p.product + ((d * count + j) * p.batch + b) * 4 * h,
                             p.d_bias + (b * p.directions + d) * 4 * h);
        });
    }
}

extern "C" void wave_forward(const Pass* p, int64_t start, int64_t first, int64_t count) {
    p->bf16 ? forward<uint16_t>(*p, start, first, count) : forward<float>(*p, start, first, count);
}

extern "C" void wave_backward(const Pass* p, int64_t start, int64_t first, int64_t count) {
    p->bf16 ? backward<uint16_t>(*p, start, first, count) : backward<float>(*p, start, first, count);
}
