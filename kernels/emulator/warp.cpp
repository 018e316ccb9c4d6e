#include "warp.hpp"

#include "block.hpp"
#include "race.hpp"

namespace emu {

void Warp::reset() {
  for (Meeting& meeting : meetings_) meeting.mask = meeting.arrived = 0;
}

bool Warp::awaits(uint32_t lane) const {
  for (const Meeting& meeting : meetings_)
    if (meeting.arrived && (meeting.mask >> lane & 1)) return true;
  return false;
}

Meeting* Warp::of(uint32_t mask) {
  for (Meeting& meeting : meetings_)
    if (meeting.mask == mask) return &meeting;
  for (Meeting& meeting : meetings_)
    if (!meeting.arrived) {
      meeting.mask = mask;
      return &meeting;
    }
  return nullptr;
}

// Waits until all lanes of `mask` have passed `bytes` bytes each; the last lane to arrive calls `last` before any resumes.
template <class Last> static Meeting& meet(uint32_t mask, const void* value, size_t bytes, uint32_t& turn, Last last) {
  Thread& me = self();
  if (!(mask >> me.lane & 1)) block->fail("a lane that is not in its own mask");
  Meeting* meeting = me.warp->of(mask);
  if (!meeting) block->fail("more than four parts of a warp meet concurrently");
  turn = meeting->turn & 1;
  memcpy(meeting->slots[turn] + me.lane * SLOT, value, bytes);
  meeting->arrived |= 1u << me.lane;
  if (meeting->arrived != mask) {
    block->suspend(Wait::Warp, mask);
    return *meeting;
  }
  meeting->arrived = 0;
  meeting->turn++;
  last(*meeting, turn);
  Thread* first = &me - me.lane;
  for (uint32_t lane = 0; lane < 32; lane++)
    if ((mask >> lane & 1) && lane != me.lane) block->wake(first[lane]);
  block->yield();
  return *meeting;
}

const uint8_t* exchange(uint32_t mask, const void* value, size_t bytes) {
  uint32_t turn;
  Meeting& meeting = meet(mask, value, bytes, turn, [](Meeting&, uint32_t) {});
  return meeting.slots[turn];
}

void warp_barrier(uint32_t mask) {
  uint32_t turn;
  uint8_t nothing = 0;
  meet(mask, &nothing, 1, turn, [mask](Meeting&, uint32_t) {
    std::vector<Thread*> met;
    for (uint32_t lane = 0; lane < 32; lane++)
      if (mask >> lane & 1) met.push_back(&self() - self().lane + lane);
    race::meet(met);
  });
}

constexpr uint32_t ALL = ~0u;

// Each lane passes the address of a row of 16 bytes, lanes 0 to 7 those of the first matrix. From each matrix, or its
// transpose, it gets two numbers: row lane / 4, columns lane % 4 * 2 and the next.
void load_matrices(uint32_t (&to)[4], const void* row, bool transposed) {
  block->check_shared(row, 16, "ldmatrix");
  race::note(row, 16, false);
  const uint8_t* slots = exchange(ALL, &row, sizeof row);
  uint32_t lane = self().lane, across = lane / 4, along = lane % 4 * 2;
  for (uint32_t matrix = 0; matrix < 4; matrix++) {
    uint16_t pair[2];
    for (uint32_t i = 0; i < 2; i++) {
      uint32_t r = transposed ? along + i : across, c = transposed ? across : along + i;
      memcpy(&pair[i], of_lane<const uint8_t*>(slots, matrix * 8 + r) + c * 2, 2);
    }
    to[matrix] = pair[0] | uint32_t(pair[1]) << 16;
  }
}

static float widen(uint32_t bits, Half type) {
  uint16_t half = uint16_t(bits);
  if (type == Half::BF16) return std::bit_cast<float>(uint32_t(half) << 16);
  return float(std::bit_cast<_Float16>(half));
}

// mma.m16n8k16. Lane 4 r + t holds rows r and r + 8 of A and C and column r of B: of C the columns 2 t and 2 t + 1, of
// A and B the elements along k with these numbers and 8 more.
void multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Half type) {
  struct Operands { uint32_t a[4], b[2]; } mine;
  memcpy(mine.a, a, sizeof mine.a);
  memcpy(mine.b, b, sizeof mine.b);
  static_assert(sizeof mine <= SLOT);
  uint32_t turn;
  Meeting& meeting = meet(ALL, &mine, sizeof mine, turn, [type](Meeting& meeting, uint32_t turn) {
    float left[16][16], right[16][8];
    for (uint32_t lane = 0; lane < 32; lane++) {
      auto given = of_lane<Operands>(meeting.slots[turn], lane);
      uint32_t r = lane / 4;
      for (uint32_t i = 0; i < 2; i++) {
        uint32_t k = lane % 4 * 2 + i, shift = 16 * i;
        left[r][k] = widen(given.a[0] >> shift, type);
        left[r + 8][k] = widen(given.a[1] >> shift, type);
        left[r][k + 8] = widen(given.a[2] >> shift, type);
        left[r + 8][k + 8] = widen(given.a[3] >> shift, type);
        right[k][r] = widen(given.b[0] >> shift, type);
        right[k + 8][r] = widen(given.b[1] >> shift, type);
      }
    }
    float* product = meeting.product[turn];
    for (uint32_t row = 0; row < 16; row++) {
      float sums[8] = {};
      for (uint32_t k = 0; k < 16; k++)
        for (uint32_t column = 0; column < 8; column++) sums[column] += left[row][k] * right[k][column];
      memcpy(product + row * 8, sums, sizeof sums);
    }
  });
  const float* product = meeting.product[turn];
  uint32_t r = self().lane / 4, column = self().lane % 4 * 2;
  c[0] += product[r * 8 + column];
  c[1] += product[r * 8 + column + 1];
  c[2] += product[(r + 8) * 8 + column];
  c[3] += product[(r + 8) * 8 + column + 1];
}

}  // namespace emu
