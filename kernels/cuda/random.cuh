// Dropout masks: the draws of the CPU backend, a pure function of key, site, step, sequence and coordinates.
//
// Philox4x32 with 7 rounds (J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3",
// 2011) turns a counter into 16 bytes, hence 16 decisions: an element is kept if its byte is at least the threshold. Nothing
// depends on which thread draws, so backward recomputes a mask instead of reading a stored one.
#pragma once

#include "enumerations.cuh"
#include "platform.cuh"

// A dropout at one site of a model in one optimizer step. A threshold of 0 keeps everything.
struct Dropout {
  uint32_t threshold, key[2], site, step;
};

// The position of a row of hidden states: its sequence within the optimizer step, and its place in that sequence.
struct RowCoordinate {
  uint32_t sequence, position;
};

DEVICE uint4 philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1) {
#pragma unroll
  for (int round = 0; round < 7; round++) {
    uint64_t p0 = uint64_t(0xD2511F53u) * c0, p1 = uint64_t(0xCD9E8D57u) * c2;
    c0 = uint32_t(p1 >> 32) ^ c1 ^ k0;
    c1 = uint32_t(p1);
    c2 = uint32_t(p0 >> 32) ^ c3 ^ k1;
    c3 = uint32_t(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return uint4{c0, c1, c2, c3};
}

// The first word of a counter: purpose, site, and for attention the head.
DEVICE uint32_t counter_word(Purpose purpose, const Dropout& dropout, uint32_t head) {
  return uint32_t(purpose) << 28 | dropout.site << 8 | head;
}

// The bytes of 16 neighbouring columns of a row of hidden states. `group` numbers such columns within the sequence:
// position * ceil(width / 16) + column / 16.
DEVICE uint4 hidden_bytes(const Dropout& dropout, uint32_t sequence, uint32_t group) {
  uint32_t word = counter_word(Purpose::Dropout, dropout, 0);
  return philox(word, dropout.step, sequence, group, dropout.key[0], dropout.key[1]);
}

// The bytes of the 16 elements that a lane holds in a 16 x 32 block of a head's scores, laid out like accumulators of tensor
// cores: lane 4 (i % 8) + j % 8 / 2 holds element (i, j) in byte 4 (j / 8) + 2 (i / 8) + j % 2.
DEVICE uint4 attention_bytes(const Dropout& dropout, uint32_t sequence, uint32_t head, uint32_t row_block,
                             uint32_t column_block, uint32_t lane) {
  uint32_t word = counter_word(Purpose::AttentionDropout, dropout, head);
  uint32_t coordinates = row_block << 16 | column_block << 5 | lane;
  return philox(word, dropout.step, sequence, coordinates, dropout.key[0], dropout.key[1]);
}

// Byte 4 `word` + `byte` of 16.
DEVICE uint32_t byte_of(const uint4& bytes, int word, int byte) {
  uint32_t of_word = word < 2 ? (word == 0 ? bytes.x : bytes.y) : (word == 2 ? bytes.z : bytes.w);
  return of_word >> 8 * byte & 0xff;
}

// The factor of kept elements, by which dropout preserves the mean.
DEVICE float kept_scale(const Dropout& dropout) { return 256.0f / float(256 - dropout.threshold); }
